//! Names as segments of a path: percent-encoding (RFC 3986, 2.1).

/// A segment that stands for `name`.
pub(crate) fn encode(name: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(byte).collect()
}

/// The name that a segment stands for; `None` where it stands for none, or for one that no log should show.
pub(crate) fn decode(segment: &str) -> Option<String> {
    let mut bytes = segment.bytes();
    let mut name = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'%' => digit(bytes.next()?)? * 16 + digit(bytes.next()?)?,
            _ => byte,
        });
    }
    let name = String::from_utf8(name).ok()?;
    let is_name = !name.is_empty() && !name.chars().any(char::is_control);
    is_name.then_some(name)
}

fn digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        for (name, segment) in [
            ("sticky", "sticky"),
            ("127.0.0.1:3000", "127.0.0.1:3000"),
            ("[::1]:80", "%5B::1%5D:80"),
            ("zone a/1?%", "zone%20a%2F1%3F%25"),
            ("日", "%E6%97%A5"),
            (".", "."),
        ] {
            assert_eq!(encode(name), segment);
            assert_eq!(decode(segment).as_deref(), Some(name));
        }
        assert_eq!(decode("%e6%97%a5").as_deref(), Some("日"));
        for wrong in ["", "%", "%4", "%4g", "%+1", "%ff", "%0A", "a%00b", "%c2%85"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
