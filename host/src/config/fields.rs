//! A reader of TOML tables that collects mistakes instead of stopping at the first one.

use std::cell::RefCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Complaint, Mistake, code, list, quoted};
use super::nearest::nearest;

/// A TOML value and its place in the file.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// Where all readers of a document put their mistakes.
#[derive(Default)]
pub(super) struct Mistakes {
    list: RefCell<Vec<Mistake>>,
    /// Every key asked for, with the kind of its table, and whether a file had it: compared with `config/reference.toml`.
    #[cfg(test)]
    pub(super) asked: RefCell<std::collections::BTreeMap<(&'static str, &'static str), bool>>,
}

impl Mistakes {
    pub(super) fn add(&self, mistake: Mistake) {
        self.list.borrow_mut().push(mistake);
    }

    pub(super) fn into_list(self) -> Vec<Mistake> {
        self.list.into_inner()
    }

    /// What a reader returned, or `None` once its complaint is noted.
    pub(super) fn note<T>(
        &self,
        subject: &str,
        span: Range<usize>,
        result: Result<T, Complaint>,
    ) -> Option<T> {
        result
            .map_err(|complaint| self.add(complaint.about(subject, span)))
            .ok()
    }
}

/// One table while it is read: hands out values by key and, at the end, complains about the keys nobody asked for.
///
/// A value that is missing or wrong becomes a mistake, and after any mistake no configuration comes out: so readers carry on with whatever
/// stand-in is at hand.
pub(super) struct Fields<'t> {
    /// As in `config/reference.toml`: `[upstream.NAME]`.
    kind: &'static str,
    /// As in the file: `[upstream.app]`.
    title: String,
    /// Of the table's header.
    span: Range<usize>,
    /// `None` for a section that the file leaves out.
    table: Option<&'t DeTable<'t>>,
    known: Vec<&'static str>,
    pub(super) mistakes: &'t Mistakes,
}

impl<'t> Fields<'t> {
    /// The document itself.
    pub(super) fn document(table: &'t DeTable<'t>, mistakes: &'t Mistakes) -> Self {
        Fields {
            kind: "",
            title: "the top level".to_owned(),
            span: 0..0,
            table: Some(table),
            known: Vec::new(),
            mistakes,
        }
    }

    /// A table that is a value. Anything else is a mistake.
    pub(super) fn inside(
        &self,
        value: &'t Value<'t>,
        kind: &'static str,
        title: String,
    ) -> Option<Fields<'t>> {
        let table = self.mistakes.note(&title, value.span(), as_table(value))?;
        Some(Fields {
            kind,
            title,
            span: value.span(),
            table: Some(table),
            known: Vec::new(),
            mistakes: self.mistakes,
        })
    }

    /// How messages call this table.
    pub(super) fn title(&self) -> &str {
        &self.title
    }

    /// The place of this table's header.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The value of a key, in whatever form.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'t Value<'t>> {
        self.known.push(key);
        let value = self.table.and_then(|table| table.get(key));
        #[cfg(test)]
        {
            *self
                .mistakes
                .asked
                .borrow_mut()
                .entry((self.kind, key))
                .or_default() |= value.is_some();
        }
        value
    }

    /// The value of a key that may be left out.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'t Value<'t>) -> Result<T, Complaint>,
    ) -> Option<T> {
        let value = self.take(key)?;
        self.mistakes.note(&code(key), value.span(), read(value))
    }

    /// The value of a key that has a default.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&'t Value<'t>) -> Result<T, Complaint>,
    ) -> T {
        self.optional(key, read).unwrap_or(default)
    }

    /// The value of a key that has to be there; `example` is a line that would do.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&'t Value<'t>) -> Result<T, Complaint>,
    ) -> Option<T> {
        let value = self.required_value(key, example)?;
        self.mistakes.note(&code(key), value.span(), read(value))
    }

    /// Like [`required`](Fields::required), for a value that is read in pieces.
    pub(super) fn required_value(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<&'t Value<'t>> {
        let value = self.take(key);
        if value.is_none() {
            let missing = Mistake::new(format!("{} has no {}", self.title, code(key)))
                .at(self.span(), format!("{} is missing", code(key)))
                .help(format!("add a line such as: {example}"));
            self.mistakes.add(missing.absence());
        }
        value
    }

    /// A table of this table; an empty one where the file leaves it out.
    pub(super) fn section(&mut self, key: &'static str, kind: &'static str) -> Fields<'t> {
        let title = if self.kind.is_empty() {
            kind.to_owned()
        } else {
            code(key)
        };
        let table = self
            .take(key)
            .and_then(|value| self.inside(value, kind, title.clone()));
        let (span, mistakes) = (self.span(), self.mistakes);
        table.unwrap_or(Fields {
            kind,
            title,
            span,
            table: None,
            known: Vec::new(),
            mistakes,
        })
    }

    /// `[KEY.NAME]`: the tables of a table by their names, in the order of the file.
    pub(super) fn named(
        &mut self,
        key: &'static str,
        kind: &'static str,
    ) -> Vec<(Name<'t>, Fields<'t>)> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let Some(tables) = value.get_ref().as_table() else {
            let complaint = Complaint::new(format!("must be a table with a name: [{key}.NAME]"))
                .label(found(value));
            self.mistakes.add(complaint.about(&code(key), value.span()));
            return Vec::new();
        };
        let read = |(name, value)| {
            let fields = self.inside(value, kind, format!("[{key}.{}]", Name::text(name)))?;
            self.mistakes.note(
                &format!("the name in [{key}.NAME]"),
                name.span(),
                valid_name(name.get_ref()),
            );
            Some((
                Name {
                    text: name.get_ref(),
                    span: name.span(),
                },
                fields,
            ))
        };
        in_file_order(tables).into_iter().filter_map(read).collect()
    }

    /// `[[KEY]]`: tables in a row.
    pub(super) fn each(&mut self, key: &'static str, kind: &'static str) -> Vec<Fields<'t>> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let title = format!("[[{key}]]");
        let Some(tables) = value.get_ref().as_array() else {
            let help = format!("write `{title}`, with two brackets on each side");
            let complaint = Complaint::new("may be there several times")
                .label(found(value))
                .help(help);
            self.mistakes.add(complaint.about(&code(key), value.span()));
            // What is in it can be checked all the same.
            let single = value
                .get_ref()
                .is_table()
                .then(|| self.inside(value, kind, title));
            return single.flatten().into_iter().collect();
        };
        tables
            .iter()
            .filter_map(|table| self.inside(table, kind, title.clone()))
            .collect()
    }

    /// The entries of a list that may be left out, in whatever form.
    pub(super) fn list(&mut self, key: &'static str) -> Option<Vec<&'t Value<'t>>> {
        let value = self.take(key)?;
        self.list_of(key, value)
    }

    /// The entries of a list, the value of `key`.
    pub(super) fn list_of(
        &self,
        key: &'static str,
        value: &'t Value<'t>,
    ) -> Option<Vec<&'t Value<'t>>> {
        let list = value.get_ref().as_array().ok_or_else(|| {
            let complaint = wrong_type(value, "a list, in brackets");
            match value.get_ref().as_str() {
                Some(text) => complaint.help(format!("write [{}]", quoted(text))),
                None => complaint,
            }
        });
        Some(
            self.mistakes
                .note(&code(key), value.span(), list)?
                .iter()
                .collect(),
        )
    }

    /// The keys of this table, none of which has a meaning of its own, in the order of the file.
    pub(super) fn free(self) -> Vec<(&'t str, &'t Value<'t>)> {
        let entries = self.table.map(in_file_order).unwrap_or_default();
        entries
            .into_iter()
            .map(|(key, value)| (key.get_ref().as_ref(), value))
            .collect()
    }

    /// Complains about every key that nobody asked for.
    pub(super) fn finish(self) {
        for (key, _) in self.table.into_iter().flat_map(in_file_order) {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let label = match nearest(name, self.known.iter().copied()) {
                Some(nearest) => format!("did you mean {}?", code(nearest)),
                None => "not a key that can stand here".to_owned(),
            };
            let help = match self.known.as_slice() {
                [only] => format!("the only key of {} is {}", self.title, code(only)),
                known => format!(
                    "the keys of {} are {}",
                    self.title,
                    list(known.iter().copied())
                ),
            };
            self.mistakes.add(
                Mistake::new(format!("unknown key {}", code(name)))
                    .at(key.span(), label)
                    .help(help),
            );
        }
    }
}

/// The NAME of `[upstream.NAME]`.
pub(super) struct Name<'t> {
    pub(super) text: &'t str,
    pub(super) span: Range<usize>,
}

impl Name<'_> {
    /// For a title: names of any length and content come here before they are checked.
    fn text(name: &Spanned<std::borrow::Cow<'_, str>>) -> String {
        let name = name.get_ref();
        if valid_name(name).is_ok() {
            name.to_string()
        } else {
            "NAME".to_owned()
        }
    }
}

/// A complaint about a value of another type than `wanted`.
pub(super) fn wrong_type(value: &Value<'_>, wanted: &str) -> Complaint {
    Complaint::new(format!("must be {wanted}")).label(found(value))
}

/// What a value is, for the line beneath it.
pub(super) fn found(value: &Value<'_>) -> String {
    let name = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("this is {name}")
}

fn as_table<'t>(value: &'t Value<'t>) -> Result<&'t DeTable<'t>, Complaint> {
    value
        .get_ref()
        .as_table()
        .ok_or_else(|| wrong_type(value, "a table"))
}

/// `toml` keeps its tables sorted by key; the places of the keys give the order of the file back.
fn in_file_order<'t>(
    table: &'t DeTable<'t>,
) -> Vec<(&'t Spanned<std::borrow::Cow<'t, str>>, &'t Value<'t>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// Characters of a name: enough for any purpose, and names stand in metrics and logs.
const NAME_MAX: usize = 64;

fn valid_name(name: &str) -> Result<(), Complaint> {
    let refused = |label: &str| {
        let help = format!("use 1 to {NAME_MAX} of the characters a-z, 0-9, `-` and `_`");
        Err(Complaint::new("is not a valid name")
            .label(label)
            .help(help))
    };
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.is_empty() {
        return refused("empty");
    }
    if name.len() > NAME_MAX {
        return refused("too long");
    }
    match name.chars().find(|c| !allowed(*c)) {
        Some(c) => refused(&format!("{c:?} is not allowed")),
        None => Ok(()),
    }
}
