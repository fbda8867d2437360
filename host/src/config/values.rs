//! Readers of single values: a TOML value in, a checked value or a complaint out.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::{DeInteger, DeValue};

use super::diagnostic::{Complaint, list, quoted};
use super::fields::{Value, wrong_type};
use super::nearest::nearest;
use super::units::{self, show_duration, show_size};

pub(super) fn string<'t>(value: &'t Value<'t>) -> Result<&'t str, Complaint> {
    value.get_ref().as_str().ok_or_else(|| {
        let complaint = wrong_type(value, "a string");
        let quotes_help = !value.get_ref().is_table() && !value.get_ref().is_array();
        if quotes_help {
            complaint.help("put it in quotes")
        } else {
            complaint
        }
    })
}

pub(super) fn boolean(value: &Value<'_>) -> Result<bool, Complaint> {
    value
        .get_ref()
        .as_bool()
        .ok_or_else(|| wrong_type(value, "true or false, without quotes"))
}

/// A whole number within `range`.
pub(super) fn integer<T>(value: &Value<'_>, range: RangeInclusive<T>) -> Result<T, Complaint>
where
    T: Copy + Ord + TryFrom<i64> + std::fmt::Display,
{
    let DeValue::Integer(number) = value.get_ref() else {
        return Err(wrong_type(value, "a whole number, without quotes"));
    };
    let fitting = to_i64(number).and_then(|number| T::try_from(number).ok());
    fitting
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            Complaint::new(format!(
                "must be between {} and {}",
                range.start(),
                range.end()
            ))
            .label("out of range")
        })
}

/// A duration within `range`.
pub(super) fn duration(
    value: &Value<'_>,
    range: RangeInclusive<Duration>,
) -> Result<Duration, Complaint> {
    if let DeValue::Integer(number) = value.get_ref() {
        return Err(Complaint::new("needs a unit")
            .label("a bare number")
            .help(format!(
                "if you mean seconds, write {}",
                quoted(&format!("{number}s"))
            )));
    }
    let text = value
        .get_ref()
        .as_str()
        .ok_or_else(|| wrong_type(value, "a duration such as \"30s\""))?;
    let duration = units::duration(text)?;
    if range.contains(&duration) {
        return Ok(duration);
    }
    let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
    Err(Complaint::new(format!("must be between {least} and {most}")).label("out of range"))
}

/// A size in bytes within `range`.
pub(super) fn size(value: &Value<'_>, range: RangeInclusive<u64>) -> Result<u64, Complaint> {
    if let DeValue::Integer(number) = value.get_ref() {
        return Err(Complaint::new("needs a unit")
            .label("a bare number")
            .help(format!(
                "if you mean bytes, write {}",
                quoted(&format!("{number}B"))
            )));
    }
    let text = value
        .get_ref()
        .as_str()
        .ok_or_else(|| wrong_type(value, "a size such as \"16MiB\""))?;
    let size = units::size(text)?;
    if range.contains(&size) {
        return Ok(size);
    }
    let (least, most) = (show_size(*range.start()), show_size(*range.end()));
    Err(Complaint::new(format!("must be between {least} and {most}")).label("out of range"))
}

/// A [`size`] of something in memory.
pub(super) fn memory_size(
    value: &Value<'_>,
    range: RangeInclusive<usize>,
) -> Result<usize, Complaint> {
    // Lossless on every platform that has a usize of 64 bits or less.
    let bytes = size(value, *range.start() as u64..=*range.end() as u64)?;
    usize::try_from(bytes)
        .map_err(|_| Complaint::new("is too large").label("more than this machine can address"))
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(value: &Value<'_>, words: &[(&str, T)]) -> Result<T, Complaint> {
    let text = string(value)?;
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*meaning);
    }
    let names = || words.iter().map(|(word, _)| *word);
    let label = nearest(text, names()).map_or_else(
        || "not one of them".to_owned(),
        |word| format!("did you mean {word:?}?"),
    );
    Err(Complaint::new(format!("must be one of {}", list(names()))).label(label))
}

/// A short text that is shown in logs and metrics.
pub(super) fn label_text(value: &Value<'_>) -> Result<String, Complaint> {
    const CHARACTERS_MAX: usize = 128;
    let text = string(value)?;
    if text.is_empty() {
        return Err(Complaint::new("must not be empty"));
    }
    if text.chars().count() > CHARACTERS_MAX {
        return Err(
            Complaint::new("is too long").label(format!("more than {CHARACTERS_MAX} characters"))
        );
    }
    if text.chars().any(char::is_control) {
        return Err(Complaint::new("has a control character in it")
            .help("leave out line breaks, tabs and escapes"));
    }
    Ok(text.to_owned())
}

/// `None` where 64 bits do not suffice.
pub(super) fn to_i64(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}
