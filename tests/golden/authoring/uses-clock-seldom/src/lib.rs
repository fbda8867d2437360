use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

pub struct Mine;

impl Policy for Mine {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(Mine)
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        if request.target() == "/now" {
            std::hint::black_box(std::time::SystemTime::now());
        }
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

export_policy!(Mine);
