//! What is said of a handful of rounds.

/// The middle of some figures, and the lowest and highest of them.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// `None` if there are no figures.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (&low, &high) = (sorted.first()?, sorted.last()?);
        // Of an even number, the mean of the middle two.
        let middle = [
            sorted.get((sorted.len() - 1) / 2)?,
            sorted.get(sorted.len() / 2)?,
        ];
        let median = middle.into_iter().sum::<f64>() / 2.0;
        Some(Spread { median, low, high })
    }
}

/// The ratio of each round of one contender to the same round of the other; rounds that either lacks are left out.
pub(crate) fn ratios(of: &[Option<f64>], to: &[Option<f64>]) -> Vec<f64> {
    let pairs = of.iter().zip(to);
    pairs
        .filter_map(|(of, to)| Some(of.as_ref()? / to.as_ref()?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of([]), None);
        let spread = |figures: &[f64]| {
            let spread = Spread::of(figures.iter().copied()).unwrap();
            (spread.median, spread.low, spread.high)
        };
        assert_eq!(spread(&[3.0]), (3.0, 3.0, 3.0));
        assert_eq!(spread(&[9.0, 1.0, 2.0]), (2.0, 1.0, 9.0));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 9.0]), (3.0, 1.0, 9.0));
    }

    #[test]
    fn a_round_is_compared_with_the_same_round() {
        let of = [Some(2.0), None, Some(9.0), Some(1.0)];
        let to = [Some(1.0), Some(5.0), Some(3.0), None];
        assert_eq!(ratios(&of, &to), [2.0, 3.0]);
    }
}
