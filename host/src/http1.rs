//! HTTP/1.1 on the wire (RFC 9112): heads, framing, chunks, and the buffers they are read into.
//!
//! One codec serves both sides. It is strict: what two recipients could understand in two ways is refused, towards
//! clients with 400 and from backends with 502. A head is copied once, out of the buffer it was read into, and kept
//! as text with the place of each line in it; edits change the list of places, and the way out is one pass over that
//! list. Nothing here waits: sockets are polled, so that whoever forwards can look at both ends at once.

pub(crate) mod buffer;
pub(crate) mod fields;
pub(crate) mod framing;
pub(crate) mod head;

pub(crate) use self::buffer::{Buffers, Wire};
pub(crate) use self::fields::{Fields, Name, Span};
pub(crate) use self::framing::{Decoder, Framing};
pub(crate) use self::head::{HeadError, RequestHead, ResponseHead, Version};
