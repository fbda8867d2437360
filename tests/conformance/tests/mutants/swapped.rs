//! Against the law of what one instance hands to the next.

use waypost_plugin::{Backends, Pick, Request};

use crate::{State, turn};

fn counting(state: &mut State, backends: &Backends) -> Pick {
    state.count = state.count.wrapping_add(1);
    turn(backends, state.count)
}

mutant! {
    /// Saves, and does not restore.
    StateLost [] {
    fn pick(state: &mut State, _: &Request, backends: &Backends) -> Pick { counting(state, backends) }
    fn save(state: &State) -> Vec<u8> { state.count.to_le_bytes().into() }
} }

mutant! {
    /// Restores what was there before the last pick.
    StateOffByOne [] {
    fn pick(state: &mut State, _: &Request, backends: &Backends) -> Pick { counting(state, backends) }
    fn save(state: &State) -> Vec<u8> { state.count.wrapping_sub(1).to_le_bytes().into() }
    fn restore(state: &mut State, bytes: &[u8]) -> Result<(), String> {
        state.count = u64::from_le_bytes(bytes.try_into().map_err(|_| "not eight bytes")?);
        Ok(())
    }
} }

mutant! {
    /// Keeps the lowest byte.
    StateCutShort [] {
    fn pick(state: &mut State, _: &Request, backends: &Backends) -> Pick {
        state.count += 100;
        turn(backends, state.count)
    }
    fn save(state: &State) -> Vec<u8> { vec![state.count as u8] }
    fn restore(state: &mut State, bytes: &[u8]) -> Result<(), String> {
        state.count = u64::from(*bytes.first().ok_or("nothing")?);
        Ok(())
    }
} }

mutant! { PanicsOnGarbage [] {
    fn pick(state: &mut State, _: &Request, backends: &Backends) -> Pick { counting(state, backends) }
    fn save(state: &State) -> Vec<u8> { state.count.to_string().into() }
    fn restore(state: &mut State, bytes: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        state.count = text.parse().expect("a number");
        Ok(())
    }
} }

mutant! { PanicsOnTruncated [] {
    fn pick(state: &mut State, _: &Request, backends: &Backends) -> Pick { counting(state, backends) }
    fn save(state: &State) -> Vec<u8> { [&b"count"[..], &state.count.to_le_bytes()].concat() }
    fn restore(state: &mut State, bytes: &[u8]) -> Result<(), String> {
        let Some(rest) = bytes.strip_prefix(b"count") else { return Err("not mine".into()) };
        state.count = u64::from_le_bytes(rest[..8].try_into().expect("eight bytes"));
        Ok(())
    }
} }

mutant! {
    /// Trusts a length that it reads.
    BelievesLengths [] {
    fn pick(state: &mut State, _: &Request, backends: &Backends) -> Pick { counting(state, backends) }
    fn save(state: &State) -> Vec<u8> { [&[8][..], &state.count.to_le_bytes()].concat() }
    fn restore(state: &mut State, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() != 9 { return Err("not nine bytes".into()) }
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[1..1 + usize::from(bytes[0])]);
        state.count = u64::from_le_bytes(number);
        Ok(())
    }
} }

rows! {
    StateLost => "law/same-after-swap",
    StateOffByOne => "law/same-after-swap",
    StateCutShort => "law/same-after-swap",
    PanicsOnGarbage => "law/restore-garbage",
    PanicsOnTruncated => "law/restore-truncated",
    BelievesLengths => "law/restore-altered",
}
