//! Mistakes in a configuration, and how they are shown: all at once, each with its place in the file.

use std::error::Error;
use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// Mistakes drawn in full. More would only scroll the first ones, which are the ones to begin with, out of sight.
const SHOWN_MAX: usize = 100;
/// Characters of a value that a message repeats.
const QUOTED_MAX: usize = 60;

/// Everything that is wrong with a configuration, at least one mistake, in the order of the file.
///
/// `Display` and `Debug` are both [`render`](ConfigError::render) without colour.
pub struct ConfigError {
    /// As the user named it; `None` for a configuration that comes from the command line.
    file: Option<String>,
    text: String,
    mistakes: Vec<Mistake>,
    /// They keep nothing from running.
    warnings: bool,
}

impl ConfigError {
    /// `mistakes` point into `text`.
    pub(super) fn new(
        file: Option<String>,
        text: impl Into<String>,
        mut mistakes: Vec<Mistake>,
    ) -> Self {
        // Stable, and what stands nowhere in the file comes last.
        mistakes.sort_by_key(|mistake| mistake.at.as_ref().map_or(usize::MAX, |at| at.span.start));
        ConfigError {
            file,
            text: text.into(),
            mistakes,
            warnings: false,
        }
    }

    /// The same, called warnings.
    pub(crate) fn into_warnings(self) -> Self {
        ConfigError {
            warnings: true,
            ..self
        }
    }

    /// How many mistakes there are. At least 1.
    pub fn count(&self) -> usize {
        self.mistakes.len()
    }

    /// All mistakes as rustc shows them: title, `file:line:column`, the line with a caret, what to do about it. Ends without a newline.
    ///
    /// `color` adds ANSI escapes: only for a terminal.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut shown: Vec<String> = self
            .mistakes
            .iter()
            .take(SHOWN_MAX)
            .map(|mistake| renderer.render(&[self.group(mistake)]))
            .collect();
        let left = self.mistakes.len().saturating_sub(SHOWN_MAX);
        if left > 0 {
            let title = format!("{left} more mistakes are not shown");
            shown.push(renderer.render(&[Group::with_title(self.level().primary_title(title))]));
        }
        // The renderer pads empty lines of a help text.
        shown
            .join("\n\n")
            .lines()
            .map(str::trim_end)
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn level(&self) -> Level<'static> {
        if self.warnings {
            Level::WARNING
        } else {
            Level::ERROR
        }
    }

    fn group<'a>(&'a self, mistake: &'a Mistake) -> Group<'a> {
        let group = Group::with_title(self.level().primary_title(&mistake.title));
        let group = match (&mistake.at, &self.file) {
            (Some(at), _) if !self.text.trim().is_empty() => {
                group.element(self.snippet(at, mistake.also.as_ref()))
            }
            (_, Some(file)) => group.element(Origin::path(file)),
            _ => group,
        };
        group.elements(mistake.help.iter().map(|help| Level::HELP.message(help)))
    }

    /// The lines from the first place to the last one. Not the whole text: that would be searched again for every mistake.
    fn snippet<'a>(
        &'a self,
        at: &'a Place,
        also: Option<&'a Place>,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let text = self.text.as_str();
        let primary = visible(text, &at.span);
        let context = also.map(|place| (visible(text, &place.span), place.label.as_str()));
        let first = context
            .iter()
            .fold(primary.start, |first, (span, _)| first.min(span.start));
        let last = context
            .iter()
            .fold(primary.end, |last, (span, _)| last.max(span.end));
        let begin = before(text, first)
            .rfind('\n')
            .map_or(0, |newline| newline + 1);
        let end = after(text, last)
            .find('\n')
            .map_or(text.len(), |newline| last + newline);
        let shifted =
            |span: Range<usize>| span.start.saturating_sub(begin)..span.end.saturating_sub(begin);

        let annotations = [(AnnotationKind::Primary, primary, at.label.as_str())]
            .into_iter()
            .chain(context.map(|(span, label)| (AnnotationKind::Context, span, label)))
            .map(|(kind, span, label)| {
                kind.span(shifted(span))
                    .label((!label.is_empty()).then_some(label))
            });
        Snippet::source(text.get(begin..end).unwrap_or_default())
            .line_start(
                before(text, begin)
                    .bytes()
                    .filter(|byte| *byte == b'\n')
                    .count()
                    + 1,
            )
            .path(self.file.as_deref())
            .annotations(annotations)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl Error for ConfigError {}

/// One mistake and where it stands.
pub(super) struct Mistake {
    title: String,
    at: Option<Place>,
    also: Option<Place>,
    help: Option<String>,
    /// Something is missing: not reported beside a syntax error, which may have swallowed it.
    absence: bool,
}

struct Place {
    span: Range<usize>,
    label: String,
}

impl Mistake {
    pub(super) fn new(title: impl Into<String>) -> Self {
        Mistake {
            title: title.into(),
            at: None,
            also: None,
            help: None,
            absence: false,
        }
    }

    /// Where it stands, in bytes of the text, and what to say beneath that place (may be empty).
    pub(super) fn at(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.at = Some(Place {
            span,
            label: label.into(),
        });
        self
    }

    /// A second place that has to do with it.
    pub(super) fn also(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.also = Some(Place {
            span,
            label: label.into(),
        });
        self
    }

    /// What to do about it.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Marks a mistake that consists in something not being there.
    pub(super) fn absence(mut self) -> Self {
        self.absence = true;
        self
    }

    /// Where it begins, in bytes of the text.
    pub(super) fn start(&self) -> Option<usize> {
        self.at.as_ref().map(|at| at.span.start)
    }

    pub(super) fn is_absence(&self) -> bool {
        self.absence
    }
}

/// What is wrong with a value, before it is known which one: readers of values return it.
#[derive(Debug)]
pub(super) struct Complaint {
    what: String,
    label: String,
    help: Option<String>,
    absence: bool,
}

impl Complaint {
    /// `what` continues a sentence that begins with the name of the value: `is not a duration`.
    pub(super) fn new(what: impl Into<String>) -> Self {
        Complaint {
            what: what.into(),
            label: String::new(),
            help: None,
            absence: false,
        }
    }

    /// What to say beneath the value.
    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// What to write instead.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// See [`Mistake::absence`].
    pub(super) fn absence(mut self) -> Self {
        self.absence = true;
        self
    }

    /// About a value in a file.
    pub(super) fn about(self, subject: &str, span: Range<usize>) -> Mistake {
        let mistake = Mistake::new(format!("{subject} {}", self.what)).at(span, self.label);
        Mistake {
            help: self.help,
            absence: self.absence,
            ..mistake
        }
    }

    /// About a value that stands in no file, such as a command line argument.
    pub(super) fn about_argument(self, subject: &str) -> Mistake {
        let reason = if self.label.is_empty() {
            String::new()
        } else {
            format!(": {}", self.label)
        };
        Mistake {
            help: self.help,
            ..Mistake::new(format!("{subject} {}{reason}", self.what))
        }
    }
}

/// A value for a message: in quotes, without control characters, not longer than a line.
pub(super) fn quoted(value: &str) -> String {
    match value.char_indices().nth(QUOTED_MAX) {
        Some((end, _)) => format!("{:?}...", before(value, end)),
        None => format!("{value:?}"),
    }
}

/// A name for a message: in backticks, without control characters, not longer than a line.
pub(super) fn code(name: &str) -> String {
    let shown: String = name
        .chars()
        .take(QUOTED_MAX)
        .flat_map(char::escape_debug)
        .collect();
    let rest = if name.chars().nth(QUOTED_MAX).is_some() {
        "..."
    } else {
        ""
    };
    format!("`{shown}{rest}`")
}

/// Several names for a message.
pub(super) fn list<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    names.into_iter().map(code).collect::<Vec<_>>().join(", ")
}

/// The part of a span that can be drawn: inside the text, on one line, on character boundaries, not on the empty line behind the last newline.
fn visible(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.trim_end().len()));
    let end = text.floor_char_boundary(span.end.clamp(start, text.len()));
    let line = text
        .get(start..end)
        .unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default();
    start..start + line.len()
}

fn before(text: &str, end: usize) -> &str {
    text.get(..end).unwrap_or_default()
}

fn after(text: &str, start: usize) -> &str {
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str, span: Range<usize>) -> ConfigError {
        ConfigError::new(
            Some("a.toml".to_owned()),
            text,
            vec![Mistake::new("wrong").at(span, "here")],
        )
    }

    #[test]
    fn any_span_in_any_text_can_be_drawn() {
        for text in [
            "",
            "\n",
            "\r\n\r\n",
            "a",
            "a\n",
            "ä = \"ö\"\r\nx = 1\r\n",
            "\t\u{1b}[31m\0\n\u{feff}x",
            "\"\"\"\na\nb\n\"\"\"\n",
            "日本\u{301}\n語",
        ] {
            for start in 0..text.len() + 2 {
                for end in start..text.len() + 2 {
                    let shown = error(text, start..end).to_string();
                    assert!(shown.starts_with("error: wrong"), "{shown}");
                    assert!(error(text, start..end).render(true).contains("wrong"));
                }
            }
        }
    }

    #[test]
    fn a_hundred_mistakes_are_enough() {
        let mistakes = (0..250)
            .map(|number| Mistake::new(format!("mistake {number}")).at(number..number, ""))
            .collect();
        let shown = ConfigError::new(None, "x".repeat(300), mistakes).to_string();
        assert!(shown.contains("mistake 99\n") && !shown.contains("mistake 100\n"));
        assert!(shown.ends_with("error: 150 more mistakes are not shown"));
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(quoted("a\u{1b}b"), "\"a\\u{1b}b\"");
        assert!(quoted(&"ä".repeat(1000)).len() < 200);
        assert!(code(&"ä".repeat(1000)).len() < 200);
    }
}
