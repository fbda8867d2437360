//! The nearest known name to one that is not known: "did you mean".

/// The candidate that `name` most likely was meant to be, if one is near: at most a third of its characters wrong, or one begins with the
/// other.
pub(super) fn nearest<'c>(
    name: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let name: Vec<char> = name.to_lowercase().chars().collect();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let letters: Vec<char> = candidate.chars().collect();
            let tolerated = letters.len().max(3) / 3;
            if name.len().min(letters.len()) > 2
                && (name.starts_with(&letters) || letters.starts_with(&name))
            {
                return Some((tolerated, candidate));
            }
            // A key may be a megabyte long: one that differs in length alone need not be compared.
            if letters.len().abs_diff(name.len()) > tolerated {
                return None;
            }
            let distance = distance(&name, &letters);
            (distance <= tolerated).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words (optimal string alignment).
fn distance(from: &[char], to: &[char]) -> usize {
    // Row i holds the distances from the first i characters of `from` to every beginning of `to`; a swap looks two rows back.
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    let mut from_previous = None;
    for (i, &a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        let mut to_previous = None;
        for (j, &b) in to.iter().enumerate() {
            let at =
                |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&last, j) + usize::from(a != b))
                .min(at(&last, j + 1) + 1)
                .min(at(&row, j) + 1);
            if j > 0 && from_previous == Some(b) && to_previous == Some(a) {
                best = best.min(at(&before_last, j - 1) + 1);
            }
            row.push(best);
            to_previous = Some(b);
        }
        before_last = std::mem::replace(&mut last, row);
        from_previous = Some(a);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let cases = [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("policy", "polcy", 1),
            ("polciy", "policy", 1),
            ("kitten", "sitting", 3),
        ];
        for (a, b, expected) in cases {
            let [a, b]: [Vec<char>; 2] = [a, b].map(|text| text.chars().collect());
            assert_eq!(distance(&a, &b), expected, "{a:?} {b:?}");
        }
    }

    #[test]
    fn offers_only_what_is_near() {
        let names = ["host", "path", "upstream", "upgrades", "pass_host"];
        assert_eq!(nearest("upstraem", names), Some("upstream"));
        assert_eq!(nearest("Host", names), Some("host"));
        assert_eq!(nearest("pass-host", names), Some("pass_host"));
        assert_eq!(nearest("pass", names), Some("pass_host"));
        assert_eq!(nearest("p", names), None);
        assert_eq!(nearest("location", names), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), names), None);
    }
}
