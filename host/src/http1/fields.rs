//! The field lines of a head, as text and the places of names and values in it.

use std::num::NonZeroU32;

/// A piece of a head's text.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Span {
        // A head is limited to far less than 4 GiB.
        let cut = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Span {
            start: cut(start),
            end: cut(end),
        }
    }

    pub(crate) fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    pub(crate) fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// This span without its first `count` bytes.
    pub(crate) fn from(self, count: usize) -> Span {
        Span::new(self.start as usize + count, self.end as usize)
    }

    /// The first `count` bytes of this span.
    pub(crate) fn until(self, count: usize) -> Span {
        Span::new(self.start as usize, self.start as usize + count)
    }
}

/// The names that mean something to a proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Name {
    Authorization,
    Connection,
    ContentLength,
    Cookie,
    Date,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XRealIp,
    Other,
}

impl Name {
    /// In any case.
    pub(crate) fn of(name: &[u8]) -> Name {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        // By length first: most names are none of these, and are told so by one comparison.
        match name.len() {
            2 if is("te") => Name::Te,
            3 if is("via") => Name::Via,
            4 if is("host") => Name::Host,
            4 if is("date") => Name::Date,
            6 if is("expect") => Name::Expect,
            6 if is("cookie") => Name::Cookie,
            7 if is("upgrade") => Name::Upgrade,
            7 if is("trailer") => Name::Trailer,
            9 if is("x-real-ip") => Name::XRealIp,
            9 if is("forwarded") => Name::Forwarded,
            10 if is("connection") => Name::Connection,
            10 if is("keep-alive") => Name::KeepAlive,
            13 if is("authorization") => Name::Authorization,
            14 if is("content-length") => Name::ContentLength,
            14 if is("http2-settings") => Name::Http2Settings,
            15 if is("x-forwarded-for") => Name::XForwardedFor,
            16 if is("x-forwarded-host") => Name::XForwardedHost,
            16 if is("proxy-connection") => Name::ProxyConnection,
            17 if is("x-forwarded-proto") => Name::XForwardedProto,
            17 if is("transfer-encoding") => Name::TransferEncoding,
            18 if is("proxy-authenticate") => Name::ProxyAuthenticate,
            19 if is("proxy-authorization") => Name::ProxyAuthorization,
            _ => Name::Other,
        }
    }

    /// Concerns one connection only (RFC 9110, 7.6.1 and 11.7).
    pub(crate) fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Name::Connection
                | Name::KeepAlive
                | Name::ProxyConnection
                | Name::Te
                | Name::TransferEncoding
                | Name::Upgrade
                | Name::Http2Settings
                | Name::ProxyAuthenticate
                | Name::ProxyAuthorization
        )
    }
}

#[derive(Clone, Copy, Debug)]
struct Line {
    name: Span,
    value: Span,
    known: Name,
    /// Where the whole line ends, with its CR LF, if it is in the text as it goes out.
    end: Option<NonZeroU32>,
}

/// The field lines of a head, in their order. Names are compared in any case and kept as they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    /// The whole head as it came, and behind it what was added.
    text: Vec<u8>,
    lines: Vec<Line>,
}

/// The lines of some [`Fields`] at one time.
#[derive(Debug)]
pub(crate) struct Saved(Vec<Line>);

impl Fields {
    pub(super) fn with_text(mut self, text: &[u8]) -> Fields {
        self.clear();
        self.text.extend_from_slice(text);
        self
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.lines.clear();
    }

    pub(super) fn capacity(&self) -> usize {
        self.text.capacity() + self.lines.capacity() * size_of::<Line>()
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The text there, which is ASCII or nothing.
    pub(crate) fn str(&self, span: Span) -> &str {
        str::from_utf8(span.of(&self.text)).unwrap_or_default()
    }

    /// Adds the line whose text ends at `end`.
    pub(super) fn push(&mut self, name: Span, value: Span, end: usize) {
        let known = Name::of(name.of(&self.text));
        // Spaces behind a value do not go on.
        let whole = value.end as usize + 2 == end;
        let end = u32::try_from(end).ok().and_then(NonZeroU32::new);
        self.lines.push(Line {
            name,
            value,
            known,
            end: end.filter(|_| whole),
        });
    }

    /// Adds text that lines can point to.
    pub(crate) fn add_text(&mut self, text: &[u8]) -> Span {
        let start = self.text.len();
        self.text.extend_from_slice(text);
        Span::new(start, self.text.len())
    }

    pub(crate) fn append(&mut self, name: &str, value: &[u8]) {
        let name = self.begin_line(name);
        let value = self.add_text(value);
        self.end_line(name, value);
    }

    /// As [`Fields::append`], for a value that is in the text already.
    pub(crate) fn append_at(&mut self, name: &str, value: Span) {
        let name = self.begin_line(name);
        let start = self.text.len();
        let end = (value.end as usize).min(start);
        let range = (value.start as usize).min(end)..end;
        self.text.extend_from_within(range);
        let value = Span::new(start, self.text.len());
        self.end_line(name, value);
    }

    fn begin_line(&mut self, name: &str) -> Span {
        let name = self.add_text(name.as_bytes());
        self.text.extend_from_slice(b": ");
        name
    }

    fn end_line(&mut self, name: Span, value: Span) {
        self.text.extend_from_slice(b"\r\n");
        self.push(name, value, self.text.len());
    }

    /// Replaces all lines of a name by one.
    pub(crate) fn set(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        self.append(name, value);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.retain(|_, other| !other.eq_ignore_ascii_case(name.as_bytes()));
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(Name, &[u8]) -> bool) {
        let Fields { text, lines } = self;
        lines.retain(|line| keep(line.known, line.name.of(text)));
    }

    pub(crate) fn has(&self, name: Name) -> bool {
        self.lines.iter().any(|line| line.known == name)
    }

    /// The values of all lines of a name.
    pub(crate) fn all(&self, name: Name) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.spans(name).map(|span| span.of(&self.text))
    }

    pub(crate) fn spans(&self, name: Name) -> impl DoubleEndedIterator<Item = Span> {
        let lines = self.lines.iter();
        lines
            .filter(move |line| line.known == name)
            .map(|line| line.value)
    }

    /// The list elements of all lines of a name (RFC 9110, 5.6.1).
    pub(crate) fn elements(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    /// The value of the first line of a name.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        let mut lines = self.iter();
        lines
            .find(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let lines = self.lines.iter();
        lines.map(|line| (line.name.of(&self.text), line.value.of(&self.text)))
    }

    /// Writes all lines as they go over the wire: in one piece where they are so in the text.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        let mut run = Span::default();
        for line in &self.lines {
            let Some(end) = line.end else {
                out.extend_from_slice(run.of(&self.text));
                run = Span::default();
                write_line(out, line.name.of(&self.text), line.value.of(&self.text));
                continue;
            };
            if run.end != line.name.start {
                out.extend_from_slice(run.of(&self.text));
                run.start = line.name.start;
            }
            run.end = end.get();
        }
        out.extend_from_slice(run.of(&self.text));
    }

    /// What [`Fields::restore`] can go back to.
    pub(crate) fn save(&self) -> Saved {
        Saved(self.lines.clone())
    }

    /// Undoes all edits since.
    pub(crate) fn restore(&mut self, saved: Saved) {
        self.lines = saved.0;
    }
}

pub(crate) fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
impl Fields {
    /// Fields of these lines.
    pub(crate) fn of(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.append(name, value.as_bytes());
        }
        fields
    }

    /// All names in lower case, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let text = |name| String::from_utf8_lossy(name).to_ascii_lowercase();
        let mut names: Vec<String> = self.iter().map(|(name, _)| text(name)).collect();
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        for (name, known) in [
            ("Host", Name::Host),
            ("CONTENT-LENGTH", Name::ContentLength),
            ("transfer-encoding", Name::TransferEncoding),
            ("X-Forwarded-For", Name::XForwardedFor),
            ("proxy-authorization", Name::ProxyAuthorization),
            ("Hose", Name::Other),
            ("", Name::Other),
        ] {
            assert_eq!(Name::of(name.as_bytes()), known, "{name}");
        }
    }

    #[test]
    fn lines_are_set_appended_removed_and_restored() {
        let mut fields = Fields::of(&[("X-A", "1"), ("x-b", "2"), ("x-a", "3")]);
        let saved = fields.save();
        fields.append("x-a", b"4");
        assert_eq!(fields.get("X-A"), Some(&b"1"[..]));
        fields.set("x-B", b"5");
        fields.remove("x-a");
        let mut out = Vec::new();
        fields.write_to(&mut out);
        assert_eq!(out, b"x-B: 5\r\n");
        fields.restore(saved);
        out.clear();
        fields.write_to(&mut out);
        assert_eq!(out, b"X-A: 1\r\nx-b: 2\r\nx-a: 3\r\n");
    }

    #[test]
    fn what_is_written_is_what_is_there() {
        let names = ["a", "b", "c", "d"];
        let lines = names.map(|name| (name, "1"));
        // Every choice of the lines, with another behind them.
        for choice in 0..1_u8 << lines.len() {
            let mut fields = Fields::of(&lines);
            let chosen = |at: &usize| choice & (1 << at) != 0;
            fields.retain(|_, name| chosen(&usize::from(name[0] - b'a')));
            fields.append("e", b"2");
            let mut expected: String = (0..lines.len())
                .filter(chosen)
                .map(|at| format!("{}: 1\r\n", names[at]))
                .collect();
            expected.push_str("e: 2\r\n");
            let mut out = Vec::new();
            fields.write_to(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn lists_are_taken_apart() {
        let fields = Fields::of(&[("connection", "close, ,X-A"), ("Connection", "x-b")]);
        let elements: Vec<&[u8]> = fields.elements(Name::Connection).collect();
        assert_eq!(elements, [b"close", b"X-A".as_slice(), b"x-b"]);
    }
}
