//! Whether `export_policy!` lists every hook that a policy implements: the trait's own hooks tell that they were called.

/// Called by the hooks as the trait has them: nobody has implemented them.
pub(crate) fn absent() {
    #[cfg(not(target_arch = "wasm32"))]
    native::ABSENT.set(true);
}

#[cfg(not(target_arch = "wasm32"))]
pub use native::unlisted;

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::{
        cell::{Cell, RefCell},
        panic::{AssertUnwindSafe, catch_unwind},
        rc::Rc,
    };

    use crate::{BackendId, Policy, runner::Runner, simulated};

    thread_local! {
        /// A hook was called that is the trait's own.
        pub(super) static ABSENT: Cell<bool> = const { Cell::new(false) };
    }

    /// What to say of the first hook that the policy implements and `listed` lacks. Calls the hooks of an instance made
    /// for this; a policy that cannot do without settings is believed.
    pub fn unlisted<P: Policy>(listed: &[&str]) -> Option<String> {
        type Call<P> = fn(&mut Runner<P>);
        let calls: [(&str, &str, Call<P>); 4] = [
            ("observe", "outcomes", |runner| runner.observe(&[])),
            ("respond", "responses", |runner| {
                runner.respond(BackendId::new(0))
            }),
            ("save", "state", |runner| drop(runner.save())),
            ("restore", "state", |runner| drop(runner.restore(&[]))),
        ];
        let upstream = Rc::new(RefCell::default());
        // Its own panics say no more than that it is there.
        let in_host = |f: &mut dyn FnMut()| {
            let entered = || simulated::enter(&upstream, simulated::Call::default(), f);
            let _ = catch_unwind(AssertUnwindSafe(entered));
        };
        let mut made = None;
        in_host(&mut || made = Runner::<P>::configure("{}").ok());
        let mut runner = made?;
        in_host(&mut || runner.update(Vec::new()));
        for (method, hook, call) in calls {
            ABSENT.set(false);
            in_host(&mut || call(&mut runner));
            if !ABSENT.get() && !listed.contains(&hook) {
                let policy = std::any::type_name::<P>();
                let name = policy.rsplit("::").next().unwrap_or(policy);
                return Some(format!(
                    "{name} implements `{method}`, which the host never calls: \
                     list its hook, export_policy!({name}, {hook})"
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::{Backends, Outcome, Pick, Policy, Request};

    use super::unlisted;

    macro_rules! policy {
        ($name:ident { $($hook:item)* }) => {
            struct $name;
            impl Policy for $name {
                type Config = ();
                fn configure(_: ()) -> Result<Self, String> { Ok($name) }
                fn pick(&mut self, _: &Request, _: &Backends) -> Pick { Pick::unavailable() }
                $($hook)*
            }
        };
    }

    policy!(Plain {});
    policy!(Observes { fn observe(&mut self, _: &[Outcome]) { crate::log::info("heard"); } });
    policy!(Restores { fn restore(&mut self, _: &[u8]) -> Result<(), String> { panic!("no state") } });

    #[test]
    fn what_is_implemented_has_to_be_listed() {
        assert_eq!(unlisted::<Plain>(&[]), None);
        assert_eq!(unlisted::<Plain>(&["state"]), None);
        assert_eq!(unlisted::<Observes>(&["outcomes", "state"]), None);
        assert_eq!(
            unlisted::<Observes>(&["state"]).unwrap(),
            "Observes implements `observe`, which the host never calls: list its hook, export_policy!(Observes, outcomes)"
        );
        assert!(
            unlisted::<Restores>(&["outcomes"])
                .unwrap()
                .contains("`restore`")
        );
        assert_eq!(unlisted::<Restores>(&["state"]), None);
    }
}
