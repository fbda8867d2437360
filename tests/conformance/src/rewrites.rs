//! `rewrites-headers`: fields of requests or responses are changed.

use std::collections::BTreeSet;

use waypost_plugin::testing::{Edit, Head, HeaderEdit};

use crate::case::{Breaking, Case, Trial, Trouble};
use crate::play::fleet;
use crate::report::Verdict;
use crate::shrink;
use crate::subject::{Request, Response};
use crate::traffic::ordinary;

pub(crate) const CASES: &[Case] = &[
    Case {
        id: "rewrites-headers/rewrites",
        doc: "It does change something.",
        run: rewrites,
    },
    Case {
        id: "rewrites-headers/idempotent-requests",
        doc: "A request that it has rewritten it leaves as it is.",
        run: idempotent_requests,
    },
    Case {
        id: "rewrites-headers/idempotent-responses",
        doc: "A response that it has rewritten it leaves as it is.",
        run: idempotent_responses,
    },
    Case {
        id: "rewrites-headers/nothing-else",
        doc: "Fields that are none of its business stay as they are.",
        run: nothing_else,
    },
];

/// What is done to one in so many requests is found.
const EVERY: usize = 20;

type Fields = Vec<(String, Vec<u8>)>;

/// What a policy makes of a request and its response, after so many others.
struct Rewritten {
    request: Request,
    response: Response,
    edits: Vec<HeaderEdit>,
    reads: Vec<String>,
}

fn rewrite(
    trial: &Trial<'_>,
    before: usize,
    request: &Request,
    response: &Response,
) -> Result<Rewritten, Trouble> {
    let mut play = trial.play(1)?;
    play.set(&fleet(4));
    // Some treat only every so many requests.
    for _ in 0..before {
        play.ask(0, &Request::get("/"))?;
    }
    let picked = play.send(0, request.clone())?;
    let mut edits = picked.edits.clone();
    if let Some(backend) = picked.backend()
        && play.world.backend(backend).is_some()
    {
        edits.extend(play.respond(0, backend, response)?.edits);
    }
    Ok(Rewritten {
        request: Request {
            fields: edited(&request.fields, &edits, Head::Request),
            ..request.clone()
        },
        response: Response {
            fields: edited(&response.fields, &edits, Head::Response),
            ..response.clone()
        },
        edits,
        reads: picked.asked.fields,
    })
}

fn edited(fields: &Fields, edits: &[HeaderEdit], head: Head) -> Fields {
    let mut fields = fields.clone();
    for edit in edits.iter().filter(|edit| edit.head == head) {
        if edit.edit != Edit::Append {
            fields.retain(|(name, _)| *name != edit.name);
        }
        if edit.edit != Edit::Remove {
            fields.push((edit.name.clone(), edit.value.clone()));
        }
    }
    // Lines of one name stay in their order; that of different names means nothing.
    fields.sort_by(|(one, _), (two, _)| one.cmp(two));
    fields
}

/// The first line that is in one and not in the other.
fn difference(one: &Fields, two: &Fields) -> Option<String> {
    let show = |fields: &Fields, other: &Fields| {
        let mut lines = fields.iter();
        let (name, value) = lines.find(|line| {
            let times = |fields: &Fields| fields.iter().filter(|other| other == line).count();
            times(fields) != times(other)
        })?;
        Some(format!("{name}: {}", String::from_utf8_lossy(value)))
    };
    show(two, one).or_else(|| show(one, two))
}

fn requests(trial: &mut Trial<'_>) -> Vec<Request> {
    let (random, words) = (&mut trial.random, trial.words);
    let mut requests = vec![Request::get("/")];
    requests.extend((0..40).map(|_| {
        let request = ordinary(random, words);
        match random.below(3) {
            0 => request.field("x-canary", "1"),
            1 => request.field("accept-encoding", "gzip"),
            _ => request,
        }
    }));
    requests
}

fn response() -> Response {
    Response::new(200)
        .field("server", "origin/1.0")
        .field("content-type", "text/html")
        .field("cache-control", "max-age=60")
        .field("set-cookie", "a=b")
}

fn each(
    trial: &Trial<'_>,
    requests: Vec<Request>,
    check: impl Fn(usize, &Request) -> Result<(), Trouble>,
) -> Verdict {
    let smaller = |(before, request): &(usize, Request)| {
        let mut found = Vec::new();
        if *before > 0 {
            found.push((0, request.clone()));
        }
        let fields = shrink::shorter(&request.fields).into_iter();
        found.extend(fields.map(|fields| {
            let fewer = Request {
                fields,
                ..request.clone()
            };
            (*before, fewer)
        }));
        found
    };
    let show = |(before, request): &(usize, Request)| {
        vec![format!("{before} other requests"), request.to_string()]
    };
    let check = |(before, request): &(usize, Request)| check(*before, request);
    for (number, request) in requests.into_iter().enumerate() {
        let input = (number % EVERY, request);
        let verdict = trial.falsify(input, smaller, Breaking::Elsewhere, check, show);
        if let Some(verdict) = verdict {
            return verdict;
        }
    }
    Verdict::Pass
}

fn rewrites(trial: &mut Trial<'_>) -> Verdict {
    let requests = requests(trial);
    for (before, request) in requests.iter().enumerate() {
        match rewrite(trial, before % EVERY, request, &response()) {
            Ok(rewritten) if !rewritten.edits.is_empty() => return Verdict::Pass,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    Verdict::inconclusive("no request made it change anything; --config JSON may have to say what")
}

fn idempotent_requests(trial: &mut Trial<'_>) -> Verdict {
    let requests = requests(trial);
    each(trial, requests, |before, request| {
        let once = rewrite(trial, before, request, &response())?;
        let twice = rewrite(trial, before, &once.request, &response())?;
        match difference(&once.request.fields, &twice.request.fields) {
            Some(line) => Err(Trouble::Wrong(format!(
                "the request that it has rewritten it changes again: {line}"
            ))),
            None => Ok(()),
        }
    })
}

fn idempotent_responses(trial: &mut Trial<'_>) -> Verdict {
    let requests = requests(trial);
    each(trial, requests, |before, request| {
        let once = rewrite(trial, before, request, &response())?;
        let twice = rewrite(trial, before, request, &once.response)?;
        match difference(&once.response.fields, &twice.response.fields) {
            Some(line) => Err(Trouble::Wrong(format!(
                "the response that it has rewritten it changes again: {line}"
            ))),
            None => Ok(()),
        }
    })
}

/// What it touches with no more than it needs, or has asked for by name, is its business.
fn nothing_else(trial: &mut Trial<'_>) -> Verdict {
    let requests = requests(trial);
    let strange: Vec<String> = (0..20)
        .map(|_| format!("x-{:x}", trial.random.next()))
        .collect();
    let touched = |edits: &[HeaderEdit]| -> BTreeSet<String> {
        edits.iter().map(|edit| edit.name.clone()).collect()
    };
    each(trial, requests, |before, request| {
        let bare = Request {
            fields: Vec::new(),
            ..request.clone()
        };
        let plain = rewrite(trial, before, request, &response())?;
        let base = rewrite(trial, before, &bare, &Response::new(200))?;
        let mut business = touched(&base.edits);
        business.extend(plain.reads.iter().cloned());
        // Whatever a request has by itself it may be about, but not what nobody has heard of.
        business.extend(touched(&plain.edits));
        let mut more = request.clone();
        let mut answer = response();
        for (at, name) in strange.iter().enumerate() {
            more = more.field(name, format!("{at}"));
            answer = answer.field(name, format!("{at}"));
        }
        for (name, value) in [
            ("authorization", "Basic eDp5"),
            ("content-type", "text/plain"),
            ("etag", "\"1\""),
            ("cookie", "other=1"),
            ("x-forwarded-for", "192.0.2.9"),
        ] {
            more = more.field(name, value);
        }
        let rich = rewrite(trial, before, &more, &answer)?;
        let (request, response) = (&more.fields, &answer.fields);
        let lost = |before: &Fields, after: &Fields| {
            before
                .iter()
                .filter(|(name, _)| !business.contains(name))
                .find(|line| !after.contains(line))
                .map(|(name, _)| name.clone())
        };
        let lost =
            lost(request, &rich.request.fields).or_else(|| lost(response, &rich.response.fields));
        match lost {
            Some(name) => Err(Trouble::Wrong(format!(
                "changed or removed the field {}, with which it has nothing to do",
                if strange.contains(&name) {
                    format!("{name} (made up)")
                } else {
                    name
                }
            ))),
            None => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_made_as_the_host_makes_them() {
        let edit = |edit, name: &str, value: &str| HeaderEdit {
            head: Head::Request,
            edit,
            name: name.into(),
            value: value.into(),
        };
        let fields = vec![("b".to_owned(), b"1".to_vec()), ("a".into(), b"2".to_vec())];
        let edits = [
            edit(Edit::Set, "b", "3"),
            edit(Edit::Append, "b", "4"),
            edit(Edit::Remove, "a", ""),
        ];
        let expected = vec![("b".to_owned(), b"3".to_vec()), ("b".into(), b"4".to_vec())];
        assert_eq!(edited(&fields, &edits, Head::Request), expected);
    }
}
