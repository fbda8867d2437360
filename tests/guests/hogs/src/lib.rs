//! Takes all the memory that it gets, notices that there is no more, gives it back and goes on.

use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

struct Hogs;

impl Policy for Hogs {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(Hogs)
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        if request.header("x-misbehave").is_some() {
            let mut hoard = Vec::new();
            let mut piece = Vec::<u8>::new();
            while piece.try_reserve_exact(1 << 20).is_ok() {
                hoard.push(std::mem::take(std::hint::black_box(&mut piece)));
            }
            request.set_header("x-hoard-mib", hoard.len().to_string());
        }
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(Hogs);
