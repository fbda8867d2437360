//! Reading the body of a request, within limits.

use std::time::Duration;

use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::HeaderMap;
use hyper::body::{Bytes, Incoming};
use hyper::header::EXPECT;
use tokio::time::timeout;

use super::answer::Answer;

/// Bytes of a policy's code.
pub(crate) const CODE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of everything else.
pub(super) const BYTES_MAX: usize = 16 * 1024;
/// For a whole body.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The whole body, of at most so many bytes.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Incoming,
    bytes_max: usize,
) -> Result<Vec<u8>, Answer> {
    let announced = body.size_hint().lower();
    let waits = headers.contains_key(EXPECT);
    let too_large = usize::try_from(announced).map_or(true, |bytes| bytes > bytes_max);
    if too_large && waits {
        // Who asks first is spared the sending.
        return Err(too_large_answer(bytes_max));
    }
    match timeout(TIMEOUT, collect(&mut body, bytes_max)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(too_large_answer(bytes_max)),
        Ok(Err(error)) => {
            let text = format!("the body of the request broke off: {error}");
            Err(Answer::error(StatusCode::BAD_REQUEST, &text, None))
        }
        Err(_) => {
            let text = format!("the body of the request took longer than {TIMEOUT:?}");
            Err(Answer::error(StatusCode::REQUEST_TIMEOUT, &text, None))
        }
    }
}

/// Reads to the end, as a caller that is still sending would not see an answer. What is too much is thrown away, and
/// the result is `None`.
async fn collect(body: &mut Incoming, bytes_max: usize) -> Result<Option<Vec<u8>>, hyper::Error> {
    let mut bytes = Some(Vec::new());
    while let Some(frame) = body.frame().await {
        let data: Bytes = frame?.into_data().unwrap_or_default();
        bytes = bytes.and_then(|mut bytes| {
            let fits = bytes.len() + data.len() <= bytes_max;
            fits.then(|| {
                bytes.extend_from_slice(&data);
                bytes
            })
        });
    }
    Ok(bytes)
}

fn too_large_answer(bytes_max: usize) -> Answer {
    let text = format!("the body of the request is larger than {bytes_max} bytes");
    Answer::error(StatusCode::PAYLOAD_TOO_LARGE, &text, None)
}
