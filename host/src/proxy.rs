//! Forwarding: a request's whole way, from its head to the backend and back.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::body::{self, Download, RequestBody, ResponseBody, UploadFault, UploadReport};
use crate::config::Route;
use crate::connection::{Connection, ExchangeGuard};
use crate::error::ProxyError;
use crate::flight::Flight;
use crate::headers;
use crate::policy::slot::Slot;
use crate::policy::{self, Edit, Exchange, Verdict};
use crate::shard::View;
use crate::tunnel::Tunnel;
use crate::upstream::connect::{self, ConnectError, Link};
use crate::upstream::{Backend, Failure};

/// Answers one request. Every failure becomes a response here; what is returned is never an error.
pub(crate) async fn forward(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, std::convert::Infallible> {
    let exchange = connection.begin_exchange();
    let unread = !hyper::body::Body::is_end_stream(request.body());
    match answer(&connection, request).await {
        Ok(answer) => Ok(answer.into_response(exchange)),
        Err(error) => {
            if unread {
                connection.linger();
            }
            Ok(error.response(exchange))
        }
    }
}

/// A response head with what follows it.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every answer is the large one; a box would cost every request an allocation"
)]
enum Answer {
    Streamed(Response<()>, Download),
    /// The protocol was switched, or there is nothing to follow.
    Empty(Response<()>),
}

impl Answer {
    fn into_response(self, exchange: ExchangeGuard) -> Response<ResponseBody> {
        match self {
            Answer::Streamed(head, download) => {
                head.map(|()| ResponseBody::streamed(download, exchange))
            }
            Answer::Empty(head) => head.map(|()| ResponseBody::own(bytes::Bytes::new(), exchange)),
        }
    }
}

/// The way of a request: check, route, then pick and try until a backend has answered.
async fn answer(
    connection: &Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Answer, ProxyError> {
    let view = connection.shard.view();
    let config = &view.snapshot.config;
    let (parts, body) = request.into_parts();
    let authority = check(&parts, config.limits.request_target)?;
    if parts.uri.path() == "*" {
        return Ok(answer_asterisk());
    }
    let host = authority.as_ref().and_then(|value| value.to_str().ok());
    let index = view
        .snapshot
        .routes
        .find(host, parts.uri.path())
        .ok_or(ProxyError::NoRoute)?;
    let route = config.routes.get(index).ok_or(ProxyError::NoRoute)?;
    let slot = view.slot(route.upstream).ok_or(ProxyError::NoRoute)?;
    if content_length(&parts.headers)
        .zip(config.limits.request_body)
        .is_some_and(|(length, limit)| length > limit)
    {
        return Err(ProxyError::Upload(UploadFault::TooLarge));
    }

    let switch = headers::requested_upgrade(&parts.headers)
        .filter(|token| parts.version == Version::HTTP_11 && route.upgrades.contains(token));
    let expects = expects_continue(&parts).then(|| Arc::new(AtomicBool::new(false)));
    let (body, upload) = body::upload(
        body,
        config.limits.request_body,
        connection.timer.clone(),
        config.timeouts.request_body,
        expects.clone(),
    );
    let exchange = prepare(
        connection,
        &config.forwarded,
        parts,
        authority,
        switch.is_some(),
    );
    let attempts = Attempts {
        connection,
        view: &view,
        slot,
        route,
        upload: &upload,
        switch: switch.as_deref(),
        expects,
    };
    let answered = attempts.run(exchange, body).await;
    if !upload.is_finished() {
        connection.linger();
    }
    answered
}

/// Refuses what a gateway must not forward, and says whom the request is for (RFC 9112, 3.2).
fn check(parts: &Parts, target_max: usize) -> Result<Option<HeaderValue>, ProxyError> {
    let target_length = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target_length > target_max {
        return Err(ProxyError::TargetTooLong);
    }
    // Other bytes than these must be percent-encoded (RFC 3986, 2).
    if !parts
        .uri
        .path_and_query()
        .is_none_or(|target| target.as_str().is_ascii())
    {
        return Err(ProxyError::BadRequest("the request target is not ASCII"));
    }
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(ProxyError::Method);
    }
    if parts.uri.path() == "*" && parts.method != Method::OPTIONS {
        return Err(ProxyError::BadRequest("only OPTIONS can have the target *"));
    }
    let target = parts.uri.path_and_query().map(PathAndQuery::as_str);
    if !target.is_none_or(str::is_ascii) {
        return Err(ProxyError::BadRequest("the request target is not ASCII"));
    }
    // Once is a route back to ourselves that may end; twice is a loop.
    if parts.headers.contains_key(header::VIA) && headers::passes(&parts.headers) >= 2 {
        return Err(ProxyError::Loop);
    }
    if !headers::has_known_coding(&parts.headers) {
        return Err(ProxyError::BadRequest(
            "Transfer-Encoding can only be chunked",
        ));
    }
    if parts.uri.scheme().is_none() && parts.uri.authority().is_some() {
        return Err(ProxyError::BadRequest(
            "the request target does not begin with /",
        ));
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(ProxyError::BadRequest("more than one Host field")),
        (None, _) if parts.version == Version::HTTP_11 => {
            return Err(ProxyError::BadRequest("the Host field is missing"));
        }
        (host, _) => host,
    };
    // The authority of an absolute target replaces the field.
    let named = parts
        .uri
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let authority = named
        .or_else(|| host.cloned())
        .filter(|value| !value.is_empty());
    match authority {
        Some(value) if !headers::is_authority(&value) => {
            Err(ProxyError::BadRequest("the host is not valid"))
        }
        authority => Ok(authority),
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn expects_continue(parts: &Parts) -> bool {
    let expects = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    parts.version == Version::HTTP_11 && parts.headers.get(header::EXPECT).is_some_and(expects)
}

/// `OPTIONS *` asks what this server can do, not what a backend can.
fn answer_asterisk() -> Answer {
    let mut head = Response::new(());
    head.headers_mut().insert(
        header::ALLOW,
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    );
    Answer::Empty(head)
}

/// Turns a client's head into the one that a policy sees and a backend gets.
fn prepare(
    connection: &Connection,
    forwarded: &crate::config::Forwarded,
    mut parts: Parts,
    authority: Option<HeaderValue>,
    switches: bool,
) -> Exchange {
    let client = connection.client.origin(&parts.headers, forwarded);
    let target = origin_form(&parts.uri);
    if parts.version == Version::HTTP_10 {
        parts.headers.remove(header::EXPECT);
    }
    headers::remove_hop_by_hop(&mut parts.headers);
    if let Some(authority) = &authority {
        parts.headers.insert(header::HOST, authority.clone());
    }
    headers::add_forwarded(
        &mut parts.headers,
        &connection.client,
        authority.as_ref(),
        parts.version,
    );
    Exchange {
        // An upgrade is not something to send twice, whatever its method.
        repeatable: is_idempotent(&parts.method) && !switches,
        method: parts.method,
        target,
        authority: authority.unwrap_or(HeaderValue::from_static("")),
        headers: parts.headers,
        client,
        secure: false,
        attempt: 0,
        ticket: 0,
        tried: Vec::new(),
        request_edits: Vec::new(),
        response_edits: Vec::new(),
    }
}

/// Path and query only, byte for byte; an empty path is `/` (RFC 9112, 3.2.1).
fn origin_form(uri: &Uri) -> Uri {
    if uri.authority().is_none() {
        return uri.clone();
    }
    let target = uri
        .path_and_query()
        .cloned()
        .unwrap_or(PathAndQuery::from_static("/"));
    Uri::from(target)
}

/// RFC 9110, 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    )
}

/// All that stays the same while backends are tried.
struct Attempts<'a> {
    connection: &'a Rc<Connection>,
    view: &'a Rc<View>,
    slot: &'a Rc<Slot>,
    route: &'a Route,
    upload: &'a Rc<UploadReport>,
    switch: Option<&'a str>,
    expects: Option<Arc<AtomicBool>>,
}

impl Attempts<'_> {
    async fn run(&self, mut exchange: Exchange, body: RequestBody) -> Result<Answer, ProxyError> {
        let upstream = &self.slot.balancer.upstream;
        // A body can be sent once only.
        let repeatable = exchange.repeatable && matches!(body, RequestBody::Empty);
        let mut body = Some(body);
        let mut failed = None;
        loop {
            let verdict;
            (exchange, verdict) = self.slot.pick(exchange);
            let backend = match verdict {
                Verdict::Forward(id) => upstream.backend(id).ok_or(ProxyError::Unavailable)?,
                Verdict::Respond(status) => return Err(ProxyError::Answered(status)),
                // Where there is only one address, it is tried again if it closed the connection: behind it there may
                // be many processes, and the one that died is not the one that answers next.
                Verdict::Unavailable
                    if failed == Some(ProxyError::Backend(Failure::Reset))
                        && upstream.backends.len() == 1
                        && !exchange.tried.is_empty() =>
                {
                    exchange.tried.clear();
                    continue;
                }
                // With nobody left at all, the client hears what went wrong with the last one.
                Verdict::Unavailable => return Err(failed.unwrap_or(ProxyError::Unavailable)),
            };
            let mut flight = Flight::start(self.slot.clone(), backend.clone(), exchange.attempt);
            let repeat = repeatable && exchange.attempt < upstream.settings.retries;
            let (head, response_edits) = self.head(&mut exchange, backend, repeat);
            let body = if repeat {
                RequestBody::Empty
            } else {
                body.take().unwrap_or(RequestBody::Empty)
            };
            match self
                .exchange_with(
                    backend,
                    &mut flight,
                    Request::from_parts(head, body),
                    repeatable,
                )
                .await
            {
                Ok((response, link)) => {
                    return self.accept(response, link, flight, response_edits).await;
                }
                Err(error) => {
                    if let ProxyError::Backend(failure) = error {
                        flight.fail(failure);
                    }
                    if !repeat
                        || !matches!(
                            error,
                            ProxyError::Backend(Failure::Connect | Failure::Reset)
                        )
                    {
                        return Err(error);
                    }
                    tracing::debug!(
                        backend = backend.settings.name,
                        ?error,
                        "trying another backend"
                    );
                    failed = Some(error);
                    exchange.tried.push(backend.id);
                    exchange.attempt += 1;
                }
            }
        }
    }

    /// The head for one attempt: the policy's edits on a copy where the request may be needed again.
    fn head(&self, exchange: &mut Exchange, backend: &Backend, keep: bool) -> (Parts, Vec<Edit>) {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = exchange.method.clone();
        parts.uri = exchange.target.clone();
        parts.headers = if keep {
            exchange.headers.clone()
        } else {
            std::mem::take(&mut exchange.headers)
        };
        if (!self.route.pass_host || !parts.headers.contains_key(header::HOST))
            && let Ok(host) = HeaderValue::from_str(&backend.settings.address)
        {
            parts.headers.insert(header::HOST, host);
        }
        policy::apply(
            std::mem::take(&mut exchange.request_edits),
            &mut parts.headers,
        );
        if let Some(token) = self
            .switch
            .and_then(|token| HeaderValue::from_str(token).ok())
        {
            parts
                .headers
                .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(header::UPGRADE, token);
        }
        (parts, std::mem::take(&mut exchange.response_edits))
    }

    /// Sends the request over an idle connection or a new one and waits for the response head.
    async fn exchange_with(
        &self,
        backend: &Arc<Backend>,
        flight: &mut Flight,
        request: Request<RequestBody>,
        repeatable: bool,
    ) -> Result<(Response<Incoming>, Link), ProxyError> {
        let pool = &self.connection.shard.pool;
        // What cannot be sent again must not meet a connection that the backend has just closed.
        let verify = !repeatable;
        let idle = std::future::poll_fn(|cx| Poll::Ready(pool.take(cx, backend, verify))).await;
        let Some(link) = idle else {
            let link = self.connect(backend).await?;
            return self.send(link, flight, request).await;
        };
        // A connection that was closed while idle says nothing about the backend: once more over a new one.
        let again = repeatable.then(|| copy_without_body(&request));
        match (self.send(link, flight, request).await, again) {
            (Err(ProxyError::Backend(Failure::Reset)), Some(request)) => {
                let link = self.connect(backend).await?;
                self.send(link, flight, request).await
            }
            (result, _) => result,
        }
    }

    async fn connect(&self, backend: &Backend) -> Result<Link, ProxyError> {
        let timeout = self.slot.balancer.upstream.settings.connect_timeout;
        let limits = &self.view.snapshot.config.limits;
        connect::connect(backend, limits, timeout)
            .await
            .map_err(|error| {
                tracing::debug!(backend = backend.settings.name, %error, "no connection");
                ProxyError::Backend(match error {
                    ConnectError::Timeout => Failure::Timeout,
                    ConnectError::Io(_) => Failure::Connect,
                })
            })
    }

    async fn send(
        &self,
        mut link: Link,
        flight: &mut Flight,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Link), ProxyError> {
        if let Some(said) = self.expects.clone() {
            hyper::ext::on_informational(&mut request, move |head| {
                if head.status() == StatusCode::CONTINUE {
                    said.store(true, Ordering::Relaxed);
                }
            });
        }
        let timeout = self.slot.balancer.upstream.settings.response_timeout;
        let sent = Instant::now();
        let late = |cx: &mut Context<'_>| {
            let since = sent.max(self.upload.progress());
            self.connection.timer.poll(cx, since + timeout)
        };
        match link.send(request, late).await {
            Ok(Ok(response)) => {
                flight.answered(response.status());
                Ok((response, link))
            }
            Ok(Err(error)) => Err(self
                .upload
                .fault()
                .map_or_else(|| diagnose(&error), ProxyError::Upload)),
            Err(()) => Err(ProxyError::Backend(Failure::Timeout)),
        }
    }

    /// Turns a backend's response into the client's.
    async fn accept(
        &self,
        response: Response<Incoming>,
        link: Link,
        mut flight: Flight,
        edits: Vec<Edit>,
    ) -> Result<Answer, ProxyError> {
        let (mut parts, body) = response.into_parts();
        if !headers::has_known_coding(&parts.headers) {
            flight.fail(Failure::Protocol);
            return Err(ProxyError::Backend(Failure::Protocol));
        }
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(parts, link, flight, edits);
        }
        headers::remove_hop_by_hop(&mut parts.headers);
        self.edit_response(flight.backend.id, parts.status, &mut parts.headers, edits);
        let head = head_for_client(parts);
        let mut download = Download {
            body,
            link: Some(link),
            flight,
            shard: self.connection.shard.clone(),
            timer: self.connection.timer.clone(),
            timeout: self.slot.balancer.upstream.settings.idle_timeout,
            progress: Instant::now(),
            broken: None,
        };
        // Nothing to wait for: the connection is free before the client has its answer.
        std::future::poll_fn(|cx| {
            download.finish_if_empty(cx);
            Poll::Ready(())
        })
        .await;
        Ok(Answer::Streamed(head, download))
    }

    /// The policy's word on the response, from the pick and from its `respond` hook.
    fn edit_response(
        &self,
        backend: crate::upstream::BackendId,
        status: StatusCode,
        headers: &mut HeaderMap,
        edits: Vec<Edit>,
    ) {
        policy::apply(edits, headers);
        if self.slot.wants_responses() {
            let reply = self.slot.respond(backend, status, std::mem::take(headers));
            *headers = reply.headers;
            policy::apply(reply.edits, headers);
        }
    }

    /// Opens the tunnel that a client asked for and a backend agreed to (RFC 9110, 7.8).
    fn switch(
        &self,
        mut parts: http::response::Parts,
        link: Link,
        mut flight: Flight,
        edits: Vec<Edit>,
    ) -> Result<Answer, ProxyError> {
        let agreed = headers::requested_upgrade(&parts.headers);
        let token = self.switch.filter(|token| agreed.as_deref() == Some(token));
        let Some(token) = token.and_then(|token| HeaderValue::from_str(token).ok()) else {
            flight.fail(Failure::Protocol);
            return Err(ProxyError::Backend(Failure::Protocol));
        };
        headers::remove_hop_by_hop(&mut parts.headers);
        self.edit_response(flight.backend.id, parts.status, &mut parts.headers, edits);
        parts
            .headers
            .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, token);
        let idle_timeout = self.slot.balancer.upstream.settings.idle_timeout;
        self.connection.switch_to(Tunnel {
            link,
            flight,
            idle_timeout,
        });
        Ok(Answer::Empty(head_for_client(parts)))
    }
}

/// Status, reason phrase and fields as they came; the version is ours (RFC 9110, 2.5).
fn head_for_client(mut parts: http::response::Parts) -> Response<()> {
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, ())
}

fn copy_without_body(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// What an error of an exchange says about the backend.
fn diagnose(error: &hyper::Error) -> ProxyError {
    ProxyError::Backend(if error.is_parse() {
        Failure::Protocol
    } else {
        Failure::Reset
    })
}
