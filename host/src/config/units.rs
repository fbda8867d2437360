//! Durations (`"250ms"`, `"30s"`, `"5m"`, `"1h"`) and sizes (`"512B"`, `"8KiB"`, `"16MiB"`, `"1GiB"`), read and written.

use std::time::Duration;

use super::diagnostic::{Complaint, quoted};

/// The longest duration that a configuration may state: long enough for any timeout, short enough that adding it to a clock is safe.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Milliseconds of each unit, the smallest first.
const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
/// Bytes of each unit, the smallest first.
const SIZE_UNITS: [(&str, u64); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

const DURATION_HELP: &str =
    "write a whole number and one of the units ms, s, m, h: \"250ms\", \"30s\", \"5m\", \"1h\"";
const SIZE_HELP: &str = "write a whole number and one of the units B, KiB, MiB, GiB: \"512B\", \"8KiB\", \"16MiB\", \"1GiB\"";

/// Reads a duration of at most [`DURATION_MAX`].
pub(super) fn duration(text: &str) -> Result<Duration, Complaint> {
    let refused = |label: &str| {
        Complaint::new("is not a duration")
            .label(label)
            .help(DURATION_HELP)
    };
    let (number, unit) = split(text);
    if number.is_empty() {
        return Err(refused("no number"));
    }
    if unit.is_empty() {
        return Err(refused("no unit").help(format!(
            "if you mean seconds, write {}",
            quoted(&format!("{number}s"))
        )));
    }
    if number.contains('.') {
        return Err(fraction(number, unit).map_or_else(
            || refused("fractions are not understood"),
            |whole| refused("fractions are not understood").help(format!("write \"{whole}\"")),
        ));
    }
    let Some((_, scale)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(refused("this unit is not understood"));
    };
    let milliseconds = number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(*scale));
    milliseconds
        .map(Duration::from_millis)
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(|| {
            Complaint::new("is too long")
                .label(format!("more than {}", show_duration(DURATION_MAX)))
        })
}

/// Reads a size in bytes.
pub(super) fn size(text: &str) -> Result<u64, Complaint> {
    let refused = |label: &str| Complaint::new("is not a size").label(label).help(SIZE_HELP);
    let (number, unit) = split(text);
    if number.is_empty() {
        return Err(refused("no number"));
    }
    if unit.is_empty() {
        return Err(refused("no unit").help(format!(
            "if you mean bytes, write {}",
            quoted(&format!("{number}B"))
        )));
    }
    if number.contains('.') {
        return Err(refused("fractions are not understood")
            .help("use the next smaller unit and a whole number"));
    }
    let Some((_, scale)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        let refused = refused("this unit is not understood");
        return Err(match meant_size_unit(unit) {
            Some(meant) => refused.help(format!(
                "write {}; a unit counts in steps of 1024",
                quoted(&format!("{number}{meant}"))
            )),
            None => refused,
        });
    };
    number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(*scale))
        .ok_or_else(|| Complaint::new("is too large").label("more than a machine can count"))
}

/// The shortest spelling of a duration, in the units that [`duration`] reads.
pub(super) fn show_duration(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if milliseconds == 0 {
        "0s".to_owned()
    } else {
        show(milliseconds, &DURATION_UNITS)
    }
}

/// The shortest spelling of a size, in the units that [`size`] reads.
pub(super) fn show_size(bytes: u64) -> String {
    if bytes == 0 {
        "0B".to_owned()
    } else {
        show(bytes, &SIZE_UNITS)
    }
}

/// In the largest unit that leaves no remainder.
fn show(amount: u64, units: &[(&str, u64)]) -> String {
    let exact = units
        .iter()
        .rev()
        .find(|(_, scale)| amount.is_multiple_of(*scale));
    exact.map_or_else(
        || amount.to_string(),
        |(unit, scale)| format!("{}{unit}", amount / scale),
    )
}

/// Digits (with dots, to say something helpful about fractions) and what follows them.
fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end).unwrap_or((text, ""));
    (number, unit.trim_start())
}

/// `1.5s` as `1500ms`, where it comes out even.
fn fraction(number: &str, unit: &str) -> Option<String> {
    let (_, scale) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
    let (whole, part) = number.split_once('.')?;
    let whole = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let tens = 10_u64.checked_pow(part.len().try_into().ok()?)?;
    let part = part.parse::<u64>().ok()?.checked_mul(*scale)?;
    let even = part.is_multiple_of(tens);
    let milliseconds = scale.checked_mul(whole)?.checked_add(part / tens)?;
    even.then(|| show_duration(Duration::from_millis(milliseconds)))
}

/// nginx's `8k` and `10m`, and the units of disk makers.
fn meant_size_unit(unit: &str) -> Option<&'static str> {
    match unit.to_ascii_lowercase().as_str() {
        "b" | "byte" | "bytes" => Some("B"),
        "k" | "kb" | "ki" | "kib" => Some("KiB"),
        "m" | "mb" | "mi" | "mib" => Some("MiB"),
        "g" | "gb" | "gi" | "gib" => Some("GiB"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let read = [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("0s", 0),
            ("24h", 86_400_000),
            ("30 s", 30_000),
        ];
        for (text, milliseconds) in read {
            assert_eq!(
                duration(text).unwrap(),
                Duration::from_millis(milliseconds),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "5",
            "1.5s",
            ".s",
            "1..2s",
            "-1s",
            "+1s",
            "1m30s",
            "25h",
            "5us",
            "5S",
            "5ſ",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("512B", 512),
            ("8KiB", 8192),
            ("16MiB", 16 << 20),
            ("1GiB", 1 << 30),
            ("0B", 0),
        ] {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
        }
        for text in [
            "",
            "B",
            "512",
            "8k",
            "8KB",
            "1.5MiB",
            "-1B",
            "99999999999GiB",
            "1TiB",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spellings_are_read_back() {
        for milliseconds in [0, 1, 999, 1000, 1500, 60_000, 90_000, 3_600_000, 86_400_000] {
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(duration(&show_duration(expected)).unwrap(), expected);
        }
        for bytes in [0, 1, 1023, 1024, 1536, 65536, 1 << 30, 3 << 30] {
            assert_eq!(size(&show_size(bytes)).unwrap(), bytes);
        }
    }

    #[test]
    fn fractions_are_spelled_out() {
        assert_eq!(fraction("1.5", "s").as_deref(), Some("1500ms"));
        assert_eq!(fraction("0.5", "h").as_deref(), Some("30m"));
        assert_eq!(fraction("1.2345", "ms"), None);
        assert_eq!(fraction("1.", "s"), None);
    }
}
