//! What wit-bindgen makes of the contract: one module per world, so that a plugin exports the hooks it lists and no
//! others. Everything else of this crate is written by hand and names nothing of what is in here but in `guest`.

#![allow(
    missing_docs,
    unreachable_pub,
    reason = "generated, and documented in wit/policy.wit"
)]

pub mod policy {
    wit_bindgen::generate!({ path: "wit", world: "policy", generate_all, pub_export_macro: true });
}

pub mod outcomes {
    wit_bindgen::generate!({ path: "wit", world: "outcomes-hook", generate_all, pub_export_macro: true });
}

pub mod responses {
    wit_bindgen::generate!({ path: "wit", world: "responses-hook", generate_all, pub_export_macro: true });
}

pub mod state {
    wit_bindgen::generate!({ path: "wit", world: "state-hook", generate_all, pub_export_macro: true });
}
