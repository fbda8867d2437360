use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};

pub struct Mine;

impl Policy for Mine {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(Mine)
    }

    fn pick(&mut self, _: &Request, _: &Backends) -> Pick {
        Pick::respond(99)
    }
}

export_policy!(Mine);
