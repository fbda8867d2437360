//! What TOML itself could not read, and which of the other mistakes are worth showing beside it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use toml::de::{DeTable, Error};

use super::super::diagnostic::{Mistake, code, quoted};

/// A text that the parser gets to the end of.
pub(super) struct Readable<'t> {
    pub(super) text: Cow<'t, str>,
    /// Of the lines that are blank now.
    pub(super) errors: Vec<Error>,
}

/// The parser ends its document at the first line that is no `key = value`. With spaces in place of such lines it reads the others, and
/// everything stays where it is.
pub(super) fn blank_broken_lines(text: &str) -> Readable<'_> {
    let (_, mut errors) = DeTable::parse_recoverable(text);
    errors.retain(|error| {
        NO_KEY_AND_VALUE
            .iter()
            .any(|beginning| error.message().starts_with(beginning))
    });
    let lines = Lines::of(text);
    let broken: HashSet<_> = errors
        .iter()
        .filter_map(|error| Some(lines.beginning(error.span()?.start)))
        .collect();
    if broken.is_empty() {
        return Readable {
            text: text.into(),
            errors: Vec::new(),
        };
    }
    let mut blanked = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if broken.contains(&blanked.len()) {
            let content = line.trim_end_matches(['\r', '\n']);
            blanked.extend(std::iter::repeat_n(' ', content.len()));
            blanked.push_str(line.get(content.len()..).unwrap_or_default());
        } else {
            blanked.push_str(line);
        }
    }
    Readable {
        text: blanked.into(),
        errors,
    }
}

const NO_KEY_AND_VALUE: [&str; 2] = ["key with no value", "invalid key-value pair"];

/// All mistakes that are certain.
///
/// The parser goes on behind a syntax error, so most of a file is checked even then. What it went on with may be wrong though: therefore
/// nothing is reported as missing, nothing on a line that has a syntax error, and nothing behind a broken `[header]`, whose keys may have
/// landed in another table.
pub(super) fn merge(
    errors: impl Iterator<Item = Error>,
    mut others: Vec<Mistake>,
    text: &str,
) -> Vec<Mistake> {
    let lines = Lines::of(text);
    let mut broken = HashSet::new();
    let mut broken_header = usize::MAX;
    let mut open_reported = false;
    let mut mistakes = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        let line = lines.beginning(span.start);
        // The second error on a line is mostly the echo of the first; and a bracket never closed is an error on every line that follows.
        let open = NEVER_CLOSED
            .iter()
            .any(|beginning| error.message().starts_with(beginning));
        let echo = !broken.insert(line) || (open && std::mem::replace(&mut open_reported, true));
        if !echo {
            if is_header(text, line) {
                broken_header = broken_header.min(line);
            }
            mistakes.push(mistake(error.message(), span, text, line));
        }
    }
    if !broken.is_empty() {
        others.retain(|mistake| {
            let start = mistake.start().unwrap_or(0);
            !mistake.is_absence()
                && start < broken_header
                && !broken.contains(&lines.beginning(start))
        });
    }
    mistakes.extend(others);
    mistakes
}

/// Where the lines of a text begin. Found once: a hostile file has an error at every other byte.
struct Lines {
    beginnings: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Lines {
        // What follows the last newline of a text that says no more is not a line.
        let newlines = text
            .trim_end()
            .match_indices('\n')
            .map(|(place, _)| place + 1);
        Lines {
            beginnings: newlines.collect(),
        }
    }

    /// Where the line around `place` begins.
    fn beginning(&self, place: usize) -> usize {
        let number = self
            .beginnings
            .partition_point(|beginning| *beginning <= place);
        number
            .checked_sub(1)
            .and_then(|last| self.beginnings.get(last))
            .copied()
            .unwrap_or(0)
    }
}

fn is_header(text: &str, line: usize) -> bool {
    text.get(line..)
        .is_some_and(|line| line.trim_start_matches([' ', '\t']).starts_with('['))
}

/// Beginnings of what the parser says about a list or table in a line that has no end, or a comma too few.
const NEVER_CLOSED: [&str; 6] = [
    "missing comma",
    "missing key for inline table",
    "invalid inline table element",
    "unexpected `=` in array",
    "unclosed array,",
    "unclosed inline table",
];

/// The parser's most frequent messages, by their beginnings, in the words of somebody who never read TOML's grammar; and what to do.
const EXPLAINED: &[(&str, &str, &str)] = &[
    (
        "missing comma between array",
        "a comma, or the `]` of a list, is missing in front of this",
        LOOK_ABOVE,
    ),
    (
        "missing comma between key",
        "a comma, or the `}` of a table, is missing in front of this",
        LOOK_ABOVE,
    ),
    (
        "invalid inline table element",
        "a comma, or the `}` of a table, is missing in front of this",
        LOOK_ABOVE,
    ),
    (
        "unclosed array,",
        "a list has no `]` at its end",
        "put `]` behind its last entry",
    ),
    (
        "unclosed inline table",
        "a table has no `}` at its end",
        "put `}` behind its last entry",
    ),
    (
        "unclosed",
        "a header has no `]` at its end",
        "write [NAME], or [[NAME]] with two brackets on each side",
    ),
    (
        "invalid basic string, expected `\"`",
        "a string has no `\"` at its end",
        "put `\"` behind its last character",
    ),
    (
        "invalid literal string, expected `'`",
        "a string has no `'` at its end",
        "put `'` behind its last character",
    ),
    (
        "missing escaped value",
        "`\\` has a meaning in a string",
        "write `\\\\`, or put the string between ' and '",
    ),
    (
        "unexpected leading zero",
        "a number begins with 0",
        "leave out the zeros at its beginning",
    ),
];
const LOOK_ABOVE: &str = "look at the line above as well";

fn mistake(message: &str, span: Range<usize>, text: &str, line: usize) -> Mistake {
    if let Some((_, title, help)) = EXPLAINED
        .iter()
        .find(|(beginning, _, _)| message.starts_with(beginning))
    {
        return Mistake::new(*title).at(span, "").help(*help);
    }
    let not_value = [
        "string values must be quoted",
        "invalid float",
        "invalid integer",
        "invalid boolean",
    ];
    if not_value
        .iter()
        .any(|beginning| message.starts_with(beginning))
    {
        return value_mistake(word_around(text, span), text);
    }
    if message.starts_with("duplicate key") {
        let name = text.get(span.clone()).unwrap_or_default();
        return Mistake::new(format!("{} is there already", code(name)))
            .at(span, "")
            .help("remove one of the two, or make one of both");
    }
    if NO_KEY_AND_VALUE
        .iter()
        .any(|beginning| message.starts_with(beginning))
    {
        let line = text
            .get(line..)
            .and_then(|rest| rest.lines().next())
            .unwrap_or_default()
            .trim_end();
        let from_nginx = line.ends_with([';', '{']);
        let help = if from_nginx {
            "this looks like nginx's form; here it is: key = \"value\""
        } else {
            "write: key = \"value\""
        };
        return Mistake::new("this is not a key with a value")
            .at(span, "")
            .help(help);
    }
    Mistake::new(format!("this is not TOML: {message}")).at(span, "")
}

/// Something behind `=` that is neither a string nor anything else.
fn value_mistake(span: Range<usize>, text: &str) -> Mistake {
    let word = text.get(span.clone()).unwrap_or_default();
    let help = match word.to_ascii_lowercase().as_str() {
        "" => {
            return Mistake::new("a value is missing")
                .at(span, "")
                .help("write it behind the `=`, or remove the line");
        }
        "yes" | "on" | "true" => "write true".to_owned(),
        "no" | "off" | "false" => "write false".to_owned(),
        _ => format!("put it in quotes: {}", quoted(word)),
    };
    Mistake::new("this is not a value").at(span, "").help(help)
}

/// The parser points at the character where it gave up: the whole word around it says more.
fn word_around(text: &str, span: Range<usize>) -> Range<usize> {
    let delimiter = |c: char| c.is_whitespace() || "=,[]{}\"'#".contains(c);
    let before = text.get(..span.start).unwrap_or_default();
    let start = before
        .char_indices()
        .rev()
        .find(|(_, c)| delimiter(*c))
        .map_or(0, |(place, c)| place + c.len_utf8());
    let after = text.get(span.end..).unwrap_or_default();
    let end = after
        .find(delimiter)
        .map_or(text.len(), |length| span.end + length);
    start..end
}
