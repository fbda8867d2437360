//! The value of a cookie: who a backend is, for those only who know how it was made.

use std::fmt;

use sha2::{Digest, Sha256};

/// As long as the hash's input is taken at a time.
const BLOCK: usize = 64;

/// Bytes of the HMAC that a cookie carries.
const BYTES: usize = 16;

/// What a cookie says of a backend.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Id([u8; BYTES]);

impl Id {
    /// Reads what [`fmt::Display`] writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != BYTES * 2 {
            return None;
        }
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let &[high, low] = pair else { return None };
            *byte = digit(high)? << 4 | digit(low)?;
        }
        Some(Id(bytes))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Makes ids with one secret.
#[derive(Clone, Debug)]
pub(crate) struct Mint {
    /// The hash after the block that the key makes, for the inner and for the outer round.
    inner: Sha256,
    outer: Sha256,
}

impl Mint {
    pub(crate) fn new(secret: &[u8]) -> Self {
        let mut key = [0; BLOCK];
        let fill = |key: &mut [u8; BLOCK], from: &[u8]| {
            key.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        };
        if secret.len() > BLOCK {
            fill(&mut key, &Sha256::digest(secret));
        } else {
            fill(&mut key, secret);
        }
        let keyed = |pad: u8| Sha256::new_with_prefix(key.map(|byte| byte ^ pad));
        Mint {
            inner: keyed(0x36),
            outer: keyed(0x5c),
        }
    }

    /// The id of the backend of this name.
    pub(crate) fn id(&self, name: &str) -> Id {
        let mut id = [0; BYTES];
        let mac = self.mac(name.as_bytes());
        id.iter_mut().zip(mac).for_each(|(to, from)| *to = from);
        Id(id)
    }

    /// HMAC-SHA256 (RFC 2104).
    fn mac(&self, message: &[u8]) -> [u8; 32] {
        let inner = self.inner.clone().chain_update(message).finalize();
        self.outer.clone().chain_update(inner).finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Test cases 1, 2, 6 and 7 of RFC 4231.
    #[test]
    fn the_code_is_that_of_the_rfc() {
        for (key, message, expected) in [
            (
                vec![0x0b; 20],
                &b"Hi There"[..],
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe".to_vec(),
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                vec![0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                vec![0xaa; 131],
                b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.",
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
        ] {
            assert_eq!(hex(&Mint::new(&key).mac(message)), expected);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let id = Mint::new(b"secret").id("a");
        assert_eq!(Id::parse(&id.to_string()), Some(id));
        let text = id.to_string();
        for wrong in [
            "",
            "a",
            &text[1..],
            &format!("{text}0"),
            &text.to_uppercase(),
            &text.replace(|_| true, "g"),
            &"é".repeat(16),
        ] {
            assert_eq!(Id::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_and_secrets_make_different_ids() {
        let mint = Mint::new(b"secret");
        assert_ne!(mint.id("a"), mint.id("b"));
        assert_ne!(mint.id("a"), Mint::new(b"another").id("a"));
        assert_ne!(mint.id("a"), Mint::new(b"").id("a"));
    }
}
