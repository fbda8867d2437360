//! `sticky`: requests of one client stay with one backend while it is up.

use waypost_plugin::{BackendState, Ending};

use crate::case::{Breaking, Case, Trial, Trouble};
use crate::key::{Browser, Key};
use crate::law::lawful;
use crate::play::{Play, Spec, fleet};
use crate::report::Verdict;
use crate::subject::{Picked, Request};

pub(crate) const CASES: &[Case] = &[
    Case {
        id: "sticky/same-backend",
        doc: "A client's requests go to one backend, on whatever shard and under whatever load.",
        run: same_backend,
    },
    Case {
        id: "sticky/moves-only-when-it-must",
        doc: "A client stays where it is while other backends come, go, fail and recover.",
        run: moves_only_when_it_must,
    },
    Case {
        id: "sticky/settles-elsewhere",
        doc: "A client whose backend is down moves to another, and stays there.",
        run: settles_elsewhere,
    },
    Case {
        id: "sticky/spreads",
        doc: "Clients do not all go to the same backend.",
        run: spreads,
    },
    Case {
        id: "sticky/survives-swap",
        doc: "A client stays where it is when the policy is replaced by the same version.",
        run: survives_swap,
    },
    Case {
        id: "sticky/cookie-attributes",
        doc: "Its cookie is well-formed, for all paths, hidden from scripts, with SameSite, and Secure over TLS.",
        run: cookie_attributes,
    },
    Case {
        id: "sticky/forged-cookie",
        doc: "A cookie that somebody has tampered with does no harm.",
        run: forged_cookie,
    },
];

const SHARDS: usize = 3;

/// Runs a check for a number of clients, and finds the smallest number for which it fails.
fn clients(
    trial: &Trial<'_>,
    count: usize,
    what: &str,
    check: impl Fn(&Key, usize) -> Result<(), Trouble>,
) -> Verdict {
    let key = match Key::discover(trial) {
        Ok(key) => key,
        Err(trouble) => {
            let fails = |(): &()| match &trouble {
                Trouble::Unclear(reason) => Err(Trouble::Unclear(reason.clone())),
                Trouble::Broke(broken) => Err(Trouble::Broke(broken.clone())),
                Trouble::Wrong(what) | Trouble::NotApplicable(what) => {
                    Err(Trouble::Unclear(what.clone()))
                }
            };
            let none = |(): &()| Vec::new();
            let verdict = trial.falsify((), none, Breaking::Elsewhere, fails, |()| Vec::new());
            return verdict.unwrap_or(Verdict::Pass);
        }
    };
    let smaller = |count: &usize| match *count {
        0 | 1 => Vec::new(),
        more => vec![1, more / 2, more - 1],
    };
    let show = |count: &usize| {
        vec![
            format!("{count} client(s), told apart by {key:?}, over {SHARDS} shards"),
            what.to_owned(),
        ]
    };
    let check = |count: &usize| check(&key, *count);
    let verdict = trial.falsify(count, smaller, Breaking::Elsewhere, check, show);
    verdict.unwrap_or(Verdict::Pass)
}

fn place(play: &Play<'_>, picked: &Picked) -> Result<String, Trouble> {
    match picked.backend() {
        Some(id) => Ok(play.world.name(id)),
        None => Err(Trouble::Unclear(format!(
            "it answered {:?} instead of picking a backend",
            picked.verdict
        ))),
    }
}

/// Clients that each have sent a request, and where it went.
fn settled(
    play: &mut Play<'_>,
    key: &Key,
    count: usize,
) -> Result<Vec<(Browser, String)>, Trouble> {
    (0..count)
        .map(|number| {
            let mut browser = Browser::new(key, number as u64);
            let picked = browser.send(play, number % SHARDS)?;
            let home = place(play, &picked)?;
            Ok((browser, home))
        })
        .collect()
}

fn still_there(
    play: &mut Play<'_>,
    settled: &mut [(Browser, String)],
    round: usize,
) -> Result<(), Trouble> {
    for (number, (browser, home)) in settled.iter_mut().enumerate() {
        let picked = browser.send(play, number + round)?;
        let now = place(play, &picked)?;
        if now != *home {
            return Err(Trouble::Wrong(format!(
                "client {number} was at {home}, which is up, and went to {now}"
            )));
        }
    }
    Ok(())
}

fn same_backend(trial: &mut Trial<'_>) -> Verdict {
    let loads: Vec<u32> = (0..200).map(|_| trial.random.below(30) as u32).collect();
    let what = "5 backends whose loads change; 12 requests each";
    // No whole number of rounds: who takes turns must not look like who remembers.
    clients(trial, 23, what, |key, count| {
        let mut play = trial.play(SHARDS)?;
        play.set(&fleet(5));
        let mut settled = settled(&mut play, key, count)?;
        for round in 0..12 {
            for at in 0..5 {
                let id = play.world.backends[at].id;
                let load = loads[(round * 5 + at) % loads.len()];
                play.change(id, |live| live.in_flight = load);
            }
            play.advance(1_000_000_000);
            still_there(&mut play, &mut settled, round)?;
        }
        Ok(())
    })
}

fn moves_only_when_it_must(trial: &mut Trial<'_>) -> Verdict {
    let changes: Vec<u64> = (0..12).map(|_| trial.random.next()).collect();
    let what = "6 backends; others than the client's own come, go, drain and fail";
    clients(trial, 12, what, |key, count| {
        // Each client by itself: what is another's home may go.
        for number in 0..count {
            let mut play = trial.play(SHARDS)?;
            play.set(&fleet(6));
            // Not each of them is the first that comes.
            for other in 0..number % 6 {
                Browser::new(key, 1_000 + other as u64).send(&mut play, other)?;
            }
            let mut browser = Browser::new(key, number as u64);
            let picked = browser.send(&mut play, 0)?;
            let home = place(&play, &picked)?;
            let mut settled = [(browser, home.clone())];
            for (round, change) in changes.iter().enumerate() {
                let specs: Vec<Spec> = fleet(8)
                    .into_iter()
                    .filter_map(|spec| {
                        if format!("b{}", spec.name) == home {
                            return Some(spec);
                        }
                        match (change >> (spec.name * 3)) & 7 {
                            0 => None,
                            1 => Some(spec.being(BackendState::Down)),
                            2 => Some(spec.being(BackendState::Draining)),
                            _ => Some(spec),
                        }
                    })
                    .collect();
                // With consistent hashing a client moves to one that joins, as promised: those only leave.
                let joined = |spec: &Spec| spec.name < 6 || *key == Key::OwnCookie;
                let specs: Vec<Spec> = specs.into_iter().filter(joined).collect();
                play.set(&specs);
                still_there(&mut play, &mut settled, round)?;
            }
        }
        Ok(())
    })
}

fn settles_elsewhere(trial: &mut Trial<'_>) -> Verdict {
    let what = "5 backends; the client's own goes down; 10 more requests";
    clients(trial, 10, what, |key, count| {
        for number in 0..count {
            let mut play = trial.play(SHARDS)?;
            play.set(&fleet(5));
            let mut browser = Browser::new(key, number as u64);
            let picked = browser.send(&mut play, 0)?;
            let home = place(&play, &picked)?;
            let down = |spec: Spec| match format!("b{}", spec.name) == home {
                true => spec.being(BackendState::Down),
                false => spec,
            };
            play.set(&fleet(5).into_iter().map(down).collect::<Vec<_>>());
            let picked = browser.send(&mut play, 1)?;
            let next = place(&play, &picked)?;
            if next == home {
                return Err(Trouble::Wrong(format!(
                    "client {number} is still sent to {home}, which is down"
                )));
            }
            let mut settled = [(browser, next)];
            for round in 0..10 {
                still_there(&mut play, &mut settled, round)?;
            }
        }
        Ok(())
    })
}

fn spreads(trial: &mut Trial<'_>) -> Verdict {
    let key = Key::discover(trial);
    let check = |(): &()| {
        let Ok(key) = &key else {
            return Err(Trouble::Unclear("what it goes by was not found".into()));
        };
        let mut play = trial.play(SHARDS)?;
        play.set(&fleet(4));
        let settled = settled(&mut play, key, 60)?;
        let mut homes: Vec<&String> = settled.iter().map(|(_, home)| home).collect();
        homes.sort();
        homes.dedup();
        match homes.len() < 3 {
            true => Err(Trouble::Wrong(format!(
                "60 clients all went to {homes:?}, and there are 4 backends"
            ))),
            false => Ok(()),
        }
    };
    let show = |(): &()| vec!["4 backends, 60 clients with a request each, all under way".into()];
    let verdict = trial.falsify((), |()| Vec::new(), Breaking::Elsewhere, check, show);
    verdict.unwrap_or(Verdict::Pass)
}

fn survives_swap(trial: &mut Trial<'_>) -> Verdict {
    let what = "5 backends; between two requests every shard gets a new instance";
    clients(trial, 17, what, |key, count| {
        let mut play = trial.play(SHARDS)?;
        play.set(&fleet(5));
        let mut settled = settled(&mut play, key, count)?;
        for round in 0..3 {
            for shard in 0..SHARDS {
                let state = play.save(shard)?;
                play.replace(shard, state.as_deref())?;
            }
            still_there(&mut play, &mut settled, round)?;
            while play.end(0, Ending::Status(200), 1_000).is_some() {}
        }
        Ok(())
    })
}

fn cookie_attributes(trial: &mut Trial<'_>) -> Verdict {
    let check = |scheme: &&str| {
        let mut play = trial.play(1)?;
        play.set(&fleet(3));
        let mut browser = Browser::new(&Key::OwnCookie, 1);
        let request = Request {
            scheme: (*scheme).into(),
            ..browser.request()
        };
        let picked = play.send(0, request)?;
        let mut edits = picked.edits.clone();
        if let Some(backend) = picked.backend() {
            let response = crate::subject::Response::new(200);
            edits.extend(play.respond(0, backend, &response)?.edits);
        }
        let lines = edits.iter().filter(|edit| edit.name == "set-cookie");
        let lines: Vec<String> = lines
            .map(|edit| String::from_utf8_lossy(&edit.value).into_owned())
            .collect();
        if lines.is_empty() {
            return Err(Trouble::NotApplicable("it sets no cookie".into()));
        }
        for line in lines {
            attributes(&line, *scheme == "https").map_err(|what| {
                Trouble::Wrong(format!("{what}, over {scheme}: Set-Cookie: {line}"))
            })?;
        }
        Ok(())
    };
    for scheme in ["http", "https"] {
        let show = |scheme: &&str| vec![format!("a new client's first request, over {scheme}")];
        let none = |_: &&str| Vec::new();
        let verdict = trial.falsify(scheme, none, Breaking::Elsewhere, check, show);
        if let Some(verdict) = verdict {
            return verdict;
        }
    }
    Verdict::Pass
}

/// RFC 6265, 4.1.1, and what is good practice for a cookie that no script needs.
fn attributes(line: &str, secure: bool) -> Result<(), String> {
    let mut parts = line.split(';').map(str::trim);
    let pair = parts.next().unwrap_or_default();
    let Some((name, value)) = pair.split_once('=') else {
        return Err("there is no `=` in it".into());
    };
    let in_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(in_token) {
        return Err(format!("{name:?} is no name of a cookie"));
    }
    let in_value = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
    if !value.bytes().all(in_value) {
        return Err(format!("{value:?} is no value of a cookie"));
    }
    let attributes: Vec<(String, &str)> = parts
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    let attribute = |wanted: &str| {
        let mut found = attributes.iter();
        found
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| *value)
    };
    if attribute("path") != Some("/") {
        return Err("it has no `Path=/`: it would only be sent for some paths".into());
    }
    if attribute("httponly").is_none() {
        return Err("it has no `HttpOnly`".into());
    }
    match attribute("samesite")
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        Some("lax" | "strict") => {}
        Some("none") if attribute("secure").is_some() => {}
        Some("none") => return Err("`SameSite=None` needs `Secure`".into()),
        _ => return Err("it has no `SameSite=Lax` or the like".into()),
    }
    if secure && attribute("secure").is_none() {
        return Err("it has no `Secure`".into());
    }
    match attribute("max-age") {
        Some(age) if age.parse::<i64>().is_err() => Err("its `Max-Age` is no number".into()),
        _ => Ok(()),
    }
}

fn forged_cookie(trial: &mut Trial<'_>) -> Verdict {
    let forgeries: Vec<String> = [
        String::new(),
        "b0".into(),
        "1".into(),
        "0".into(),
        "18446744073709551616".into(),
        "-1".into(),
        "../../etc/passwd".into(),
        "%00%ff".into(),
        "a".repeat(5_000),
        "!".into(),
    ]
    .into();
    let what = "3 backends, and others before; a client whose cookie was tampered with";
    clients(trial, forgeries.len(), what, |key, count| {
        if *key != Key::OwnCookie {
            return Err(Trouble::NotApplicable("it sets no cookie".into()));
        }
        for (number, forged) in forgeries.iter().take(count).enumerate() {
            let mut play = trial.play(1)?;
            play.set(&fleet(3));
            let mut browser = Browser::new(key, number as u64);
            browser.send(&mut play, 0)?;
            let Some(cookie) = browser.cookie() else {
                return Err(Trouble::Unclear("it set no cookie this time".into()));
            };
            let honest = cookie.clone();
            let cut = &honest[..honest.len() / 2];
            for value in [forged.clone(), format!("{honest}{forged}x"), cut.to_owned()] {
                if let Some(cookie) = browser.cookie() {
                    cookie.clone_from(&value);
                }
                let request = browser.request();
                let picked = play.send(0, request.clone())?;
                lawful(&play.world, &request, &picked)
                    .map_err(|what| Trouble::Wrong(format!("{what}, for the cookie {value:?}")))?;
            }
        }
        Ok(())
    })
}
