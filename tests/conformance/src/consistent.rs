//! `consistent`: a backend that comes or goes moves only its own share of the requests.

use waypost_plugin::BackendState;

use crate::case::{Breaking, Case, Trial, Trouble};
use crate::key::Key;
use crate::play::{Play, Spec, fleet};
use crate::report::Verdict;

pub(crate) const CASES: &[Case] = &[
    Case {
        id: "consistent/repeats",
        doc: "The same key goes to the same backend, in whatever order and company it comes.",
        run: repeats,
    },
    Case {
        id: "consistent/same-on-two-hosts",
        doc: "Two hosts that know nothing of each other map the same keys to the same backends.",
        run: same_on_two_hosts,
    },
    Case {
        id: "consistent/few-move-on-leave",
        doc: "When one of n backends leaves, no more than 1.5/n of the keys move.",
        run: few_move_on_leave,
    },
    Case {
        id: "consistent/few-move-on-join",
        doc: "When a backend joins n others, no more than 1.5/(n+1) of the keys move.",
        run: few_move_on_join,
    },
    Case {
        id: "consistent/back-after-down",
        doc: "When a backend goes down and comes back, every key is where it was.",
        run: back_after_down,
    },
    Case {
        id: "consistent/spreads",
        doc: "Every backend has its share of the keys, within a factor of two.",
        run: spreads,
    },
    Case {
        id: "consistent/bounded-load",
        doc: "Where it looks at loads, a single hot key does not overload a backend.",
        run: bounded_load,
    },
];

const KEYS: u64 = 1_000;

/// Where each key goes.
fn mapping(play: &mut Play<'_>, key: &Key) -> Result<Vec<String>, Trouble> {
    (0..KEYS)
        .map(|number| {
            let picked = play.ask(number as usize, &key.request(number, number))?;
            match picked.backend() {
                Some(id) => Ok(play.world.name(id)),
                None => Err(Trouble::Unclear(format!(
                    "it answered {:?} instead of picking a backend",
                    picked.verdict
                ))),
            }
        })
        .collect()
}

fn moved(one: &[String], other: &[String]) -> usize {
    one.iter()
        .zip(other)
        .filter(|(one, two)| one != two)
        .count()
}

fn known_key(trial: &Trial<'_>) -> Result<Key, Trouble> {
    match Key::discover(trial)? {
        Key::OwnCookie => Err(Trouble::NotApplicable(
            "it goes by a cookie of its own making".into(),
        )),
        key => Ok(key),
    }
}

/// Runs a check for so many backends, and finds the smallest number for which it fails.
fn sizes(
    trial: &Trial<'_>,
    count: usize,
    what: &str,
    check: impl Fn(&Key, usize) -> Result<(), Trouble>,
) -> Verdict {
    let check = |count: &usize| check(&known_key(trial)?, *count);
    let smaller = |count: &usize| match *count {
        0..=2 => Vec::new(),
        more => vec![more / 2 + 1, more - 1],
    };
    let show = |count: &usize| vec![format!("{count} backends, {KEYS} keys; {what}")];
    let verdict = trial.falsify(count, smaller, Breaking::Elsewhere, check, show);
    verdict.unwrap_or(Verdict::Pass)
}

fn repeats(trial: &mut Trial<'_>) -> Verdict {
    sizes(
        trial,
        8,
        "all of them twice, the second time backwards",
        |key, count| {
            let mut play = trial.play(3)?;
            play.set(&fleet(count));
            let first = mapping(&mut play, key)?;
            for number in (0..KEYS).rev() {
                play.advance(7_000_000);
                let picked = play.ask(number as usize + 1, &key.request(number, KEYS + number))?;
                let now = picked.backend().map(|id| play.world.name(id));
                let before = &first[number as usize];
                if now.as_ref() != Some(before) {
                    return Err(Trouble::Wrong(format!(
                        "key {number} went to {before}, and then to {}",
                        now.unwrap_or("nowhere".into())
                    )));
                }
            }
            Ok(())
        },
    )
}

fn same_on_two_hosts(trial: &mut Trial<'_>) -> Verdict {
    sizes(trial, 9, "on two hosts", |key, count| {
        let mut one = trial.play(2)?;
        one.set(&fleet(count));
        let mut two = trial.play(2)?;
        // Another history: other ids, another time, other random numbers.
        two.skip_ids(1_234);
        two.set(&fleet(count + 3));
        two.set(&fleet(count));
        two.advance(86_400_000_000_000);
        two.host().set_random(trial.seed ^ 0x5555);
        two.host().set_ticket(1_000_003);
        let (here, there) = (mapping(&mut one, key)?, mapping(&mut two, key)?);
        match here
            .iter()
            .zip(&there)
            .position(|(here, there)| here != there)
        {
            Some(at) => Err(Trouble::Wrong(format!(
                "key {at} goes to {} on one host and to {} on the other; {} keys differ",
                here[at],
                there[at],
                moved(&here, &there)
            ))),
            None => Ok(()),
        }
    })
}

/// Keys that may move where a share of 1/n should.
fn few(n: usize) -> usize {
    let share = KEYS as f64 / n as f64;
    // A half more, and what chance makes of it.
    (1.5 * share + 3.0 * share.sqrt()) as usize
}

fn few_move_on_leave(trial: &mut Trial<'_>) -> Verdict {
    let place = trial.random.next() as usize;
    sizes(trial, 10, "one of the backends leaves", |key, count| {
        let mut play = trial.play(2)?;
        play.set(&fleet(count));
        let before = mapping(&mut play, key)?;
        let mut specs = fleet(count);
        let left = specs.remove(place % count);
        play.set(&specs);
        let after = mapping(&mut play, key)?;
        let moved = moved(&before, &after);
        match moved > few(count) {
            true => Err(Trouble::Wrong(format!(
                "b{} of {count} left, and {moved} of {KEYS} keys moved; {} would be few",
                left.name,
                few(count)
            ))),
            false => Ok(()),
        }
    })
}

fn few_move_on_join(trial: &mut Trial<'_>) -> Verdict {
    let place = trial.random.next() as usize;
    sizes(trial, 10, "one more joins", |key, count| {
        let mut play = trial.play(2)?;
        play.set(&fleet(count));
        let before = mapping(&mut play, key)?;
        let mut specs = fleet(count);
        specs.insert(place % (count + 1), Spec::up(count as u16 + 40));
        play.set(&specs);
        let after = mapping(&mut play, key)?;
        let moved = moved(&before, &after);
        match moved > few(count + 1) {
            true => Err(Trouble::Wrong(format!(
                "a backend joined {count} others, and {moved} of {KEYS} keys moved; {} would be few",
                few(count + 1)
            ))),
            false => Ok(()),
        }
    })
}

fn back_after_down(trial: &mut Trial<'_>) -> Verdict {
    let place = trial.random.next() as usize;
    sizes(trial, 7, "one goes down and comes back", |key, count| {
        let mut play = trial.play(2)?;
        play.set(&fleet(count));
        let before = mapping(&mut play, key)?;
        let mut specs = fleet(count);
        let down = place % count;
        specs[down] = specs[down].being(BackendState::Down);
        play.set(&specs);
        let during = mapping(&mut play, key)?;
        play.set(&fleet(count));
        let after = mapping(&mut play, key)?;
        if before != after {
            return Err(Trouble::Wrong(format!(
                "b{down} went down and came back, and {} keys are not where they were",
                moved(&before, &after)
            )));
        }
        let moved = moved(&before, &during);
        match moved > few(count) {
            true => Err(Trouble::Wrong(format!(
                "b{down} of {count} went down, and {moved} of {KEYS} keys moved; {} would be few",
                few(count)
            ))),
            false => Ok(()),
        }
    })
}

fn spreads(trial: &mut Trial<'_>) -> Verdict {
    sizes(trial, 8, "all of equal weight", |key, count| {
        let mut play = trial.play(1)?;
        play.set(&fleet(count));
        let homes = mapping(&mut play, key)?;
        let fair = KEYS as usize / count;
        for name in 0..count {
            let name = format!("b{name}");
            let keys = homes.iter().filter(|home| **home == name).count();
            if keys * 2 < fair || keys > fair * 2 {
                return Err(Trouble::Wrong(format!(
                    "{name} has {keys} of {KEYS} keys; its share is {fair}"
                )));
            }
        }
        Ok(())
    })
}

fn bounded_load(trial: &mut Trial<'_>) -> Verdict {
    sizes(
        trial,
        6,
        "one of which is asked for all the time",
        |key, count| {
            let mut play = trial.play(1)?;
            play.set(&fleet(count));
            let requests = 50 * count;
            let mut looks = false;
            for number in 0..requests {
                looks |= play.send(0, key.request(5, number as u64))?.asked.live;
            }
            if !looks {
                return Err(Trouble::NotApplicable("it does not look at loads".into()));
            }
            let loads = play.world.live.values().map(|live| live.in_flight as usize);
            let most = loads.max().unwrap_or(0);
            let mean = requests / count;
            match most > 3 * mean && count > 3 {
                true => Err(Trouble::Wrong(format!(
                    "a backend has {most} requests of one key under way; the mean is {mean}"
                ))),
                false => Ok(()),
            }
        },
    )
}
