//! What a policy tells clients or contents apart by, and the number it makes of it.

use std::fmt;

use serde::Deserialize;

use crate::Request;

/// The part of a request by which requests belong together; for a policy's [`Config`](crate::Config).
///
/// In a configuration it is one of `{ header = "x-user" }`, `{ cookie = "sid" }`, `"path"` and `"client-address"`.
///
/// ```
/// use serde::Deserialize;
/// use waypost_plugin::Key;
///
/// #[derive(Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Settings {
///     key: Key,
/// }
///
/// let settings: Settings = serde_json::from_str(r#"{ "key": { "cookie": "sid" } }"#).unwrap();
/// assert_eq!(settings.key, Key::cookie("sid").unwrap());
/// ```
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Key {
    /// The value of the first field line of that name.
    Header(FieldName),
    /// The value of the cookie of that name.
    Cookie(FieldName),
    /// The path, not decoded and without the query.
    Path,
    /// The client's address without port.
    ClientAddress,
}

impl Key {
    /// The key that a field of this name has.
    ///
    /// # Errors
    ///
    /// If it is not a field name.
    pub fn header(name: &str) -> Result<Self, String> {
        FieldName::try_from(name.to_owned()).map(Key::Header)
    }

    /// The key that a cookie of this name has.
    ///
    /// # Errors
    ///
    /// If it is not a name of a cookie.
    pub fn cookie(name: &str) -> Result<Self, String> {
        FieldName::try_from(name.to_owned()).map(Key::Cookie)
    }

    /// What this request has there; `None` where it has nothing, or nothing but an empty value. Costs one call to the
    /// host.
    pub fn read(&self, request: &Request) -> Option<Vec<u8>> {
        let value = match self {
            Key::Header(name) => request.header_bytes(name.as_str())?,
            Key::Cookie(name) => request.cookie(name.as_str())?.into_bytes(),
            Key::Path => request.path().into_bytes(),
            Key::ClientAddress => request.client_address().into_bytes(),
        };
        (!value.is_empty()).then_some(value)
    }
}

/// The name of a header field or of a cookie (a token, RFC 9110, 5.6.2); for a policy's [`Config`](crate::Config).
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct FieldName(String);

/// Fields that a policy may not touch, beside all that begin with `proxy-`: they are the host's to get right.
const HOSTS_OWN: [&str; 15] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];

impl FieldName {
    /// The name that a policy has by default.
    ///
    /// # Panics
    ///
    /// If it is not one: the first test that makes the policy will tell.
    pub fn from_static(name: &'static str) -> Self {
        match FieldName::try_from(name.to_owned()) {
            Ok(name) => name,
            Err(error) => panic!("{error}"),
        }
    }

    /// Whether this header field is the host's business, so that no edit of it is ever made: framing, hop-by-hop and
    /// forwarding fields. What a policy is told to edit it can refuse by this while it is configured.
    pub fn is_hosts_own(&self) -> bool {
        let name = self.0.to_ascii_lowercase();
        HOSTS_OWN.contains(&name.as_str()) || name.starts_with("proxy-")
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for FieldName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let is_token = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        if is_token {
            Ok(FieldName(name))
        } else {
            Err(format!("{name:?} is not a name of a field or cookie"))
        }
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A number for these bytes, spread evenly over all of `u64`: every bit of the bytes tells on every bit of the number.
///
/// It is the same on every machine and in every version of this crate, so hosts that never talk to one another come to
/// the same decisions by it. It keeps nothing secret: who knows this function can find bytes for any number.
///
/// ```
/// use waypost_plugin::stable_hash;
///
/// assert_eq!(stable_hash(b"user-1"), stable_hash(b"user-1"));
/// assert_ne!(stable_hash(b"user-1"), stable_hash(b"user-2"));
/// ```
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let mut state = mix(bytes.len() as u64 ^ 0x9e37_79b9_7f4a_7c15);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let mut full = [0; 8];
        full.copy_from_slice(word);
        state = mix(state ^ u64::from_le_bytes(full));
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let mut padded = [0; 8];
        padded
            .iter_mut()
            .zip(rest)
            .for_each(|(to, from)| *to = *from);
        state = mix(state ^ u64::from_le_bytes(padded));
    }
    state
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014, with the constants of Stafford's variant 13): no two numbers
/// have the same image, and one bit more or less changes about half of it.
pub(crate) const fn mix(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Two hosts of different versions must agree: these values may never change.
    #[test]
    fn the_hash_is_for_ever() {
        for (bytes, expected) in [
            (&b""[..], 0xe220_a839_7b1d_cdaf),
            (b"a", 0xda39_2e04_1ecc_1abe),
            (b"user-42", 0xca4f_217d_8021_c84c),
            (b"12345678", 0x8217_7327_e1e4_daac),
            (
                b"a path that is longer than one word",
                0xe904_816e_1c94_e695,
            ),
        ] {
            assert_eq!(stable_hash(bytes), expected, "{bytes:?}");
        }
    }

    /// Names as people give them differ in a digit or two at the end.
    #[test]
    fn similar_keys_fall_evenly() {
        const BUCKETS: usize = 256;
        for shape in ["user-{}", "10.0.0.{}", "/static/{}/app.js", "{}", "{}{}{}"] {
            for shift in [0, 24, 56] {
                let mut counts = [0_u32; BUCKETS];
                for number in 0..64 * BUCKETS {
                    let key = shape.replace("{}", &number.to_string());
                    counts[(stable_hash(key.as_bytes()) >> shift) as usize % BUCKETS] += 1;
                }
                let chi: f64 = counts
                    .iter()
                    .map(|count| (f64::from(*count) - 64.0).powi(2) / 64.0)
                    .sum();
                // 255 degrees of freedom: a fair one is above 353 once in 20,000 times.
                assert!(chi < 353.0, "{shape} {shift}: {chi}");
            }
        }
    }

    #[test]
    fn every_bit_tells_on_every_bit() {
        for length in [1, 7, 8, 9, 16, 33] {
            for bit in 0..length * 8 {
                let mut flipped = [0_u32; 64];
                for number in 0..256_u64 {
                    let mut bytes: Vec<u8> = (0..length)
                        .map(|at| mix(number * 64 + at as u64) as u8)
                        .collect();
                    let before = stable_hash(&bytes);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    let changed = before ^ stable_hash(&bytes);
                    for (at, count) in flipped.iter_mut().enumerate() {
                        *count += u32::from(changed >> at & 1 == 1);
                    }
                }
                // Half of 256 are expected; six standard deviations are 48.
                assert!(
                    flipped.iter().all(|count| (80..=176).contains(count)),
                    "{length} {bit} {flipped:?}"
                );
            }
        }
    }

    #[test]
    fn length_and_content_both_count() {
        let mut seen = BTreeSet::new();
        for number in 0..100_000 {
            assert!(seen.insert(stable_hash(number.to_string().as_bytes())));
        }
        for length in 0..1_000 {
            assert!(seen.insert(stable_hash(&vec![0; length])));
        }
    }

    #[test]
    fn settings_name_what_is_wrong() {
        let read = |json: &str| serde_json::from_str::<Key>(json);
        assert_eq!(read(r#""path""#).unwrap(), Key::Path);
        assert_eq!(read(r#""client-address""#).unwrap(), Key::ClientAddress);
        assert_eq!(
            read(r#"{"header":"x-user"}"#).unwrap(),
            Key::header("x-user").unwrap()
        );
        for (json, expected) in [
            (
                r#""ip""#,
                "unknown variant `ip`, expected one of `header`, `cookie`, `path`, `client-address`",
            ),
            (
                r#"{"cookie":"a b"}"#,
                "\"a b\" is not a name of a field or cookie",
            ),
            (
                r#"{"header":""}"#,
                "\"\" is not a name of a field or cookie",
            ),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
