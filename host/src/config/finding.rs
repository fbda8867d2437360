//! What turns out to be wrong only when a configuration is applied, shown at its place in the file like every other
//! mistake.

use std::ops::Range;
use std::path::Path;
use std::{fs, thread};

use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::diagnostic::Mistake;
use super::raw::{self, READER_STACK};

/// A mistake that cannot be seen by reading the file: a policy that does not load, an address that is taken.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) title: String,
    /// What to do about it.
    pub(crate) help: Option<String>,
    /// The way to the value. Where the file lacks the end of it, the last step that is there is shown.
    pub(crate) place: Vec<Step>,
}

/// A step down into a document.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Step {
        Step::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Step {
        Step::Index(index)
    }
}

impl ConfigError {
    /// `file` is where the configuration was read from; `None` for one that comes from the command line.
    pub(crate) fn from_findings(file: Option<&Path>, findings: Vec<Finding>) -> ConfigError {
        let text = file.and_then(read_again).unwrap_or_default();
        let places = places(&text, &findings);
        let mistakes = findings.into_iter().zip(places).map(|(finding, place)| {
            let mistake = Mistake::new(finding.title);
            let mistake = match place {
                Some(span) => mistake.at(span, ""),
                None => mistake,
            };
            match finding.help {
                Some(help) => mistake.help(help),
                None => mistake,
            }
        });
        ConfigError::new(file.map(raw::name_of), text.as_str(), mistakes.collect())
    }
}

/// The text of a file that was read before. A pipe cannot be read twice, and opening it again may wait for ever.
fn read_again(file: &Path) -> Option<String> {
    let metadata = fs::metadata(file).ok()?;
    let text = metadata
        .is_file()
        .then(|| fs::read_to_string(file).ok())??;
    Some(text.trim_start_matches('\u{feff}').to_owned())
}

fn places(text: &str, findings: &[Finding]) -> Vec<Option<Range<usize>>> {
    let look = || {
        let (document, _) = DeTable::parse_recoverable(text);
        let find = |finding: &Finding| find(document.get_ref(), &finding.place);
        findings.iter().map(find).collect::<Vec<_>>()
    };
    // On a stack as deep as the one it was read with.
    thread::scope(|scope| {
        let finder = thread::Builder::new().stack_size(READER_STACK);
        let finder = finder.spawn_scoped(scope, look).ok()?;
        finder.join().ok()
    })
    .unwrap_or_else(|| vec![None; findings.len()])
}

fn find(document: &DeTable<'_>, place: &[Step]) -> Option<Range<usize>> {
    let (Step::Key(first), rest) = place.split_first()? else {
        return None;
    };
    let mut value = document.get(first.as_str())?;
    for step in rest {
        let next = match (step, value.get_ref()) {
            (Step::Key(key), DeValue::Table(table)) => table.get(key.as_str()),
            (Step::Index(index), DeValue::Array(array)) => array.get(*index),
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => break,
        }
    }
    Some(value.span())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
[[listen]]
address = \":80\"

[policy.sticky]
file = \"sticky.wasm\"

[upstream.app]
servers = [\":1\", { address = \"nowhere:1\" }]
";

    fn shown(place: &[Step]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.toml");
        fs::write(&file, TEXT).unwrap();
        let finding = Finding {
            title: "wrong".to_owned(),
            help: Some("right".to_owned()),
            place: place.to_vec(),
        };
        let error = ConfigError::from_findings(Some(&file), vec![finding]);
        let shown = error.to_string();
        shown.replace(&directory.path().display().to_string(), "")
    }

    #[test]
    fn a_finding_points_at_its_value() {
        let expected = "\
error: wrong
 --> /a.toml:5:8
  |
5 | file = \"sticky.wasm\"
  |        ^^^^^^^^^^^^^
  |
  = help: right";
        let place = ["policy".into(), "sticky".into(), "file".into()];
        assert_eq!(shown(&place), expected);
    }

    #[test]
    fn a_place_that_is_not_there_is_approximated() {
        for (place, at) in [
            (vec!["listen".into(), 0.into(), "address".into()], ":2:11"),
            (
                vec!["policy".into(), "sticky".into(), "config".into()],
                ":4:1",
            ),
            (
                vec!["upstream".into(), "app".into(), "servers".into(), 1.into()],
                ":8:18",
            ),
            (vec!["policy".into(), "other".into()], ":4:2"),
            (vec!["nothing".into()], "--> /a.toml\n"),
        ] {
            let shown = shown(&place);
            assert!(shown.contains(at), "{place:?}: {shown}");
        }
    }

    #[test]
    fn a_file_that_is_gone_is_named_all_the_same() {
        let finding = Finding {
            title: "wrong".to_owned(),
            help: None,
            place: vec!["listen".into()],
        };
        let error = ConfigError::from_findings(Some(Path::new("/no/such.toml")), vec![finding]);
        assert_eq!(error.to_string(), "error: wrong\n--> /no/such.toml");
    }
}
