//! CIDR blocks: which peers are trusted.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A CIDR block: `10.0.0.0/8`, `::1` (one address).
///
/// Blocks of IPv4-mapped IPv6 addresses (`::ffff:10.0.0.0/104`) are kept as the IPv4 block they mean.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` is in this block.
    ///
    /// An IPv4-mapped IPv6 address, as a dual-stack listener reports its IPv4 peers, counts as the IPv4 address and as nothing else:
    /// `::/0` does not contain it, just as it does not contain the same peer on an IPv4 listener.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()) & !low_bits_32(self.prefix) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()) & !low_bits_128(self.prefix) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork::Address)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            // `parse` alone would take `+8`.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|prefix| *prefix <= longest)
                .ok_or(InvalidNetwork::Prefix { longest })?,
            Some(_) => return Err(InvalidNetwork::Prefix { longest }),
        };
        let first = first_address(address, prefix);
        if first != address {
            return Err(InvalidNetwork::HostBits(Network {
                address: first,
                prefix,
            }));
        }
        Ok(match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(mapped)) if prefix >= 96 => Network {
                address: IpAddr::V4(mapped),
                prefix: prefix - 96,
            },
            _ => Network { address, prefix },
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Why a text is not a [`Network`]; its `Display` says what to write instead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InvalidNetwork {
    /// No IP address in front of the `/`.
    Address,
    /// A prefix that is no number, or longer than the address.
    Prefix {
        /// 32 or 128.
        longest: u8,
    },
    /// The address has bits behind the prefix; the network that was probably meant.
    HostBits(Network),
}

impl fmt::Display for InvalidNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidNetwork::Address => f.write_str(
                "write an IP address or a network such as \"10.0.0.0/8\" or \"fd00::/8\"",
            ),
            InvalidNetwork::Prefix { longest } => {
                write!(f, "the number after `/` must be between 0 and {longest}")
            }
            InvalidNetwork::HostBits(network) => write!(
                f,
                "the network with this prefix begins at its first address: \"{network}\""
            ),
        }
    }
}

impl Error for InvalidNetwork {}

fn first_address(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() & !low_bits_32(prefix)).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !low_bits_128(prefix)).into()),
    }
}

/// The bits behind the prefix. A shift by the whole width has no value: then there are none.
fn low_bits_32(prefix: u8) -> u32 {
    u32::MAX.checked_shr(prefix.into()).unwrap_or(0)
}

fn low_bits_128(prefix: u8) -> u128 {
    u128::MAX.checked_shr(prefix.into()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_by_prefix() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "11.1.2.3", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.9", false),
            ("::/0", "::ffff:203.0.113.9", false),
            ("::1", "::1", true),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe80::1", false),
            ("2001:db8::/33", "2001:db8:8000::1", false),
        ];
        for (network, address, inside) in cases {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(
                parsed.contains(address.parse().unwrap()),
                inside,
                "{network} {address}"
            );
        }
    }

    #[test]
    fn refuses_what_is_no_network() {
        let refused = [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/256",
            "::/129",
            "example.com",
            "10.0.0/8",
            "10.0.0.0/8/8",
        ];
        for text in refused {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        let meant = "10.0.0.0/8".parse().unwrap();
        assert_eq!(
            "10.1.2.3/8".parse::<Network>(),
            Err(InvalidNetwork::HostBits(meant))
        );
    }
}
