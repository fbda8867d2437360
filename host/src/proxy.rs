//! Forwarding: a request's whole way, from its head to the backend and back.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Method, StatusCode};
use tokio::time::Instant;

use crate::answer::{self, Terms};
use crate::body::{Declared, Fault, Pump, Shape, Upload, UploadFault, Waits};
use crate::config::{self, Keepalive, Route};
use crate::connection::{After, Connection, head_limits};
use crate::error::ProxyError;
use crate::flight::Flight;
use crate::headers;
use crate::http1::buffer::Input;
use crate::http1::fields::write_line;
use crate::http1::framing;
use crate::http1::head::Target;
use crate::http1::{Fields, Framing, Name, RequestHead, ResponseHead, Span, Version, buffer};
use crate::policy::slot::Slot;
use crate::policy::{self, Edit, Exchange, Verdict};
use crate::shard::{Shard, View};
use crate::tunnel::{End, Tunnel};
use crate::upstream::connect::{self, ConnectError, Link};
use crate::upstream::{Backend, BackendId, Ending, Failure};

/// Answers one request. Every failure becomes a response here.
pub(crate) async fn forward(connection: &mut Connection, head: RequestHead) -> After {
    let terms = Terms::of(&head);
    let framing = match framing::of_request(&head) {
        Ok(framing) => framing,
        Err(reason) => {
            let error = ProxyError::BadRequest(reason);
            return connection.refuse(error, terms, None).await;
        }
    };
    let declared = Declared::by(&head.fields);
    let mut upload = Upload::new(framing, declared, Instant::now());
    upload.take_memory(&connection.shard.buffers);
    let after = match answer(connection, head, terms, framing, &mut upload).await {
        Ok(after) => after,
        Err(error) => connection.refuse(error, terms, Some(&mut upload)).await,
    };
    upload.end(&connection.shard.buffers);
    after
}

/// The way of a request: check, route, then pick and try until a backend has answered.
async fn answer(
    connection: &mut Connection,
    head: RequestHead,
    terms: Terms,
    framing: Framing,
    upload: &mut Upload,
) -> Result<After, ProxyError> {
    let view = connection.shard.view();
    let config = &view.snapshot.config;
    let checked = check(head, config.limits.request_target)?;
    let Some(checked) = checked else {
        return answer_asterisk(connection, terms, upload).await;
    };
    let fields = &checked.fields;
    let host = checked.authority.map(|authority| fields.str(authority));
    let target = fields.str(checked.target);
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let index = view.snapshot.routes.find(host, path);
    let index = index.ok_or(ProxyError::NoRoute)?;
    let route = config.routes.get(index).ok_or(ProxyError::NoRoute)?;
    let slot = view.slot(route.upstream).ok_or(ProxyError::NoRoute)?;
    if let (Framing::Length(length), Some(limit)) = (framing, config.limits.request_body)
        && length > limit
    {
        return Err(ProxyError::Upload(UploadFault::TooLarge));
    }
    upload.limit(config.limits.request_body);
    let now = upload.progress;

    let switch = headers::requested_upgrade(fields)
        .filter(|token| terms.version == Version::Http11 && route.upgrades.contains(token));
    let is_expectation = |value: &[u8]| value.eq_ignore_ascii_case(b"100-continue");
    if terms.version == Version::Http11 && fields.all(Name::Expect).any(is_expectation) {
        upload.hold();
    }
    let exchange = prepare(
        connection,
        &config.forwarded,
        checked,
        terms.version,
        switch.is_some(),
    );
    let mut attempts = Attempts {
        connection,
        view: &view,
        slot,
        route,
        upload,
        terms,
        switch: switch.as_deref(),
        interim: Vec::new(),
        method: exchange.method.clone(),
        sent: false,
        answered: now,
    };
    let result = attempts.run(exchange).await;
    let interim = std::mem::take(&mut attempts.interim);
    if result.is_err() && connection.write(&interim).await.is_err() {
        return Err(ProxyError::ClientGone);
    }
    result
}

/// A request that may be forwarded.
struct Checked {
    method: Method,
    /// Path and query.
    target: Span,
    /// Whom the request is for.
    authority: Option<Span>,
    fields: Fields,
}

/// Refuses what a gateway must not forward, and says what the request is for (RFC 9112, 3.2). `None` is `OPTIONS *`.
fn check(head: RequestHead, target_max: usize) -> Result<Option<Checked>, ProxyError> {
    if head.target.len() > target_max {
        return Err(ProxyError::TargetTooLong);
    }
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(ProxyError::Method);
    }
    let form = head.form().ok_or(ProxyError::BadRequest(
        "the request target does not begin with /",
    ))?;
    if form == Target::Asterisk && head.method != Method::OPTIONS {
        return Err(ProxyError::BadRequest("only OPTIONS can have the target *"));
    }
    // Once is a route back to ourselves that may end; twice is a loop.
    if headers::passes(&head.fields) >= 2 {
        return Err(ProxyError::Loop);
    }
    let mut fields = head.fields;
    let mut hosts = fields.spans(Name::Host);
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(ProxyError::BadRequest("more than one Host field")),
        (None, _) if head.version == Version::Http11 => {
            return Err(ProxyError::BadRequest("the Host field is missing"));
        }
        (host, _) => host,
    };
    drop(hosts);
    // The authority of an absolute target replaces the field.
    let (authority, target) = match form {
        Target::Absolute(authority, target) => (Some(authority), target),
        Target::Origin(target) => (host, target),
        Target::Asterisk => (host, head.target),
    };
    let authority =
        authority.filter(|authority| authority.len() > 0 || matches!(form, Target::Absolute(..)));
    if authority.is_some_and(|span| !headers::is_authority(span.of(fields.text()))) {
        return Err(ProxyError::BadRequest("the host is not valid"));
    }
    if form == Target::Asterisk {
        return Ok(None);
    }
    if let (Target::Absolute(..), Some(authority)) = (form, authority) {
        fields.remove("host");
        fields.append_at("host", authority);
    }
    // Path and query only, byte for byte; an empty path is `/` (RFC 9112, 3.2.1).
    let target = if fields.str(target).starts_with('/') {
        target
    } else {
        let text = format!("/{}", fields.str(target));
        fields.add_text(text.as_bytes())
    };
    Ok(Some(Checked {
        method: head.method,
        target,
        authority,
        fields,
    }))
}

/// `OPTIONS *` asks what this server can do, not what a backend can.
async fn answer_asterisk(
    connection: &mut Connection,
    terms: Terms,
    upload: &mut Upload,
) -> Result<After, ProxyError> {
    let whole = connection.discard(Some(upload)).await;
    let keeps = whole && terms.keeps && !connection.shard.is_draining();
    let mut out = connection.shard.buffers.take_output();
    answer::write_status(&mut out, terms, StatusCode::OK, None);
    let methods = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    write_line(&mut out, b"allow", methods);
    answer::write_length(&mut out, 0);
    let dates = &connection.shard.dates;
    dates.with(|date| write_line(&mut out, b"date", date.as_bytes()));
    terms.write_connection(&mut out, keeps);
    out.extend_from_slice(b"\r\n");
    let written = connection.write(&out).await;
    connection.shard.buffers.give_output(out);
    connection.idle_since = Instant::now();
    Ok(match written {
        Err(_) => After::Close,
        Ok(()) if keeps => After::Next,
        Ok(()) => connection.close(whole),
    })
}

/// Turns a client's head into the one that a policy sees and a backend gets.
fn prepare(
    connection: &Connection,
    forwarded: &config::Forwarded,
    checked: Checked,
    version: Version,
    switches: bool,
) -> Exchange {
    let Checked {
        method,
        target,
        authority,
        mut fields,
    } = checked;
    let client = connection.client.origin(&fields, forwarded);
    if version == Version::Http10 {
        fields.retain(|known, _| known != Name::Expect);
    }
    headers::remove_hop_by_hop(&mut fields);
    headers::add_forwarded(&mut fields, &connection.client, authority, version);
    Exchange {
        // An upgrade is not something to send twice, whatever its method.
        repeatable: is_idempotent(&method) && !switches,
        method,
        target,
        authority: authority.unwrap_or_default(),
        fields,
        client,
        secure: false,
        attempt: 0,
        ticket: 0,
        tried: Vec::new(),
        request_edits: Vec::new(),
        response_edits: Vec::new(),
    }
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
    connection: &'a mut Connection,
    view: &'a Rc<View>,
    slot: &'a Rc<Slot>,
    route: &'a Route,
    upload: &'a mut Upload,
    terms: Terms,
    switch: Option<&'a str>,
    /// What the client is to have before the response head: informational responses.
    interim: Vec<u8>,
    method: Method,
    /// A backend may have seen something of the request.
    sent: bool,
    /// When the response head came.
    answered: Instant,
}

impl Attempts<'_> {
    async fn run(&mut self, mut exchange: Exchange) -> Result<After, ProxyError> {
        let slot = self.slot;
        let upstream = &slot.balancer.upstream;
        // A body can be sent once only.
        let repeatable = exchange.repeatable && self.upload.is_empty();
        let mut failed = None;
        loop {
            let verdict;
            (exchange, verdict) = slot.pick(exchange);
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
            let started = match exchange.attempt {
                0 => self.upload.progress,
                _ => Instant::now(),
            };
            let mut flight =
                Flight::start(slot.clone(), backend.clone(), exchange.attempt, started);
            let is_last = exchange.attempt >= upstream.settings.retries;
            self.write_head(&mut exchange, backend, !is_last);
            match self
                .exchange_with(backend, &mut flight, started, repeatable)
                .await
            {
                Ok((response, link)) => {
                    let edits = std::mem::take(&mut exchange.response_edits);
                    self.connection.shard.buffers.give_fields(exchange.fields);
                    return self.accept(response, link, flight, edits).await;
                }
                Err(error) => {
                    if let ProxyError::Backend(failure) = error {
                        flight.fail(failure);
                    }
                    let repeat = match error {
                        // Nothing can happen twice.
                        ProxyError::Backend(_) if !self.sent => true,
                        ProxyError::Backend(Failure::Connect | Failure::Reset) => repeatable,
                        _ => false,
                    };
                    if is_last || !repeat {
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
                    exchange.response_edits.clear();
                }
            }
        }
    }

    /// Writes the head for one attempt. The policy's edits are undone where the request may be needed again.
    fn write_head(&mut self, exchange: &mut Exchange, backend: &Backend, keep: bool) {
        let edits = std::mem::take(&mut exchange.request_edits);
        let fields = &mut exchange.fields;
        let own_host = !self.route.pass_host || !fields.has(Name::Host);
        let saved = (keep && (own_host || !edits.is_empty())).then(|| fields.save());
        if own_host {
            fields.set("host", backend.settings.address.as_bytes());
        }
        policy::apply(edits, fields);
        let chunked = self.upload.is_chunked();
        let out = self.upload.head();
        out.extend_from_slice(exchange.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(exchange.target.of(fields.text()));
        out.extend_from_slice(b" HTTP/1.1\r\n");
        fields.write_to(out);
        if chunked {
            write_line(out, b"transfer-encoding", b"chunked");
        }
        if let Some(token) = self.switch {
            write_line(out, b"connection", b"upgrade");
            write_line(out, b"upgrade", token.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        if let Some(saved) = saved {
            fields.restore(saved);
        }
    }

    /// Sends the request over an idle connection or a new one and waits for the response head.
    async fn exchange_with(
        &mut self,
        backend: &Arc<Backend>,
        flight: &mut Flight,
        started: Instant,
        repeatable: bool,
    ) -> Result<(ResponseHead, Link), ProxyError> {
        // What cannot be sent again must not meet a connection that the backend has just closed.
        let verify = !repeatable;
        let idle = poll_fn(|cx| {
            let pool = &self.connection.shard.pool;
            Poll::Ready(pool.take(cx, backend, verify, started))
        });
        let Some(mut link) = idle.await else {
            let mut link = self.connect(backend).await?;
            let head = self.send(&mut link, flight, Instant::now()).await?;
            return Ok((head, link));
        };
        // A connection that was closed while idle says nothing about the backend: once more over a new one.
        match self.send(&mut link, flight, started).await {
            Err(ProxyError::Backend(Failure::Reset)) if repeatable => {
                let mut link = self.connect(backend).await?;
                self.upload.rewind();
                let head = self.send(&mut link, flight, Instant::now()).await?;
                Ok((head, link))
            }
            result => result.map(|head| (head, link)),
        }
    }

    async fn connect(&mut self, backend: &Backend) -> Result<Link, ProxyError> {
        let timeout = self.slot.balancer.upstream.settings.connect_timeout;
        let limits = head_limits(&self.view.snapshot.config.limits);
        // Boxed, as it is seldom needed and makes the task of every connection larger.
        let mut connecting = Box::pin(connect::connect(backend, limits, timeout));
        let connected = poll_fn(|cx| {
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(Ok(connected));
            }
            let Connection { wire, shard, .. } = &mut *self.connection;
            ready!(wire.poll_gone(cx, &shard.buffers));
            Poll::Ready(Err(ProxyError::ClientGone))
        });
        connected.await?.map_err(|error| {
            tracing::debug!(backend = backend.settings.name, %error, "no connection");
            ProxyError::Backend(match error {
                ConnectError::Timeout => Failure::Timeout,
                ConnectError::Io(_) => Failure::Connect,
            })
        })
    }

    /// Sends the request and waits for the head of the final response. Informational ones are passed on.
    async fn send(
        &mut self,
        link: &mut Link,
        flight: &mut Flight,
        sent: Instant,
    ) -> Result<ResponseHead, ProxyError> {
        self.sent = true;
        let head = poll_fn(|cx| self.poll_exchange(cx, link, sent)).await?;
        self.answered = Instant::now();
        flight.answered(head.status, self.answered);
        Ok(head)
    }

    /// Moves the request's body on and looks for the response.
    fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut Link,
        sent: Instant,
    ) -> Poll<Result<ResponseHead, ProxyError>> {
        loop {
            // A backend that takes no more may have said why before.
            match self.poll_upload(cx, link) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            let Poll::Ready(head) = link.poll_head(cx, &self.connection.shard.buffers) else {
                break;
            };
            let head = head.map_err(ProxyError::Backend)?;
            if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Ok(head));
            }
            self.pass_on(head);
            if self.poll_interim(cx).is_err() {
                return Poll::Ready(Err(ProxyError::ClientGone));
            }
        }
        if self.poll_interim(cx).is_err() {
            return Poll::Ready(Err(ProxyError::ClientGone));
        }
        let Connection {
            wire, shard, timer, ..
        } = &mut *self.connection;
        if (self.upload.is_over() || self.upload.held_until().is_some())
            && wire.poll_gone(cx, &shard.buffers).is_ready()
        {
            return Poll::Ready(Err(ProxyError::ClientGone));
        }
        let timeout = self.slot.balancer.upstream.settings.response_timeout;
        let since = sent.max(self.upload.progress);
        ready!(timer.poll(cx, since + timeout));
        Poll::Ready(Err(ProxyError::Backend(Failure::Timeout)))
    }

    /// Moves the request's body on. An error says what is wrong with the body, not with the backend.
    fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut Link,
    ) -> Poll<Result<(), ProxyError>> {
        if self.upload.is_over() {
            return Poll::Ready(Ok(()));
        }
        if let Some(by) = self.upload.held_until()
            && self.connection.timer.poll(cx, by).is_ready()
        {
            // The backend has had its time; the client has to hear from somebody that it may go on.
            if self.connection.wire.input.is_empty() {
                self.interim
                    .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            self.upload.release(Instant::now());
        }
        let Connection {
            wire, shard, timer, ..
        } = &mut *self.connection;
        let polled = self
            .upload
            .poll(cx, wire, &mut link.wire.stream, &shard.buffers);
        let fault = |fault| Poll::Ready(Err(ProxyError::Upload(fault)));
        match polled {
            Poll::Ready(Ok(()) | Err(Fault::Refused)) => Poll::Ready(Ok(())),
            Poll::Ready(Err(Fault::TooLarge)) => fault(UploadFault::TooLarge),
            Poll::Ready(Err(Fault::Broken)) => fault(UploadFault::Broken),
            Poll::Pending => {
                self.upload.note_progress();
                if self.upload.waits == Waits::Sender && self.upload.held_until().is_none() {
                    let timeout = self.view.snapshot.config.timeouts.request_body;
                    ready!(timer.poll(cx, self.upload.progress + timeout));
                    return fault(UploadFault::Timeout);
                }
                Poll::Pending
            }
        }
    }

    /// Takes an informational response over for the client (RFC 9110, 15.2).
    fn pass_on(&mut self, mut head: ResponseHead) {
        let go_ahead = head.status == StatusCode::CONTINUE;
        // Without an expectation, or after we have said it ourselves, nobody waits for it.
        let wanted = !go_ahead || self.upload.held_until().is_some();
        if go_ahead && self.upload.held_until().is_some() {
            self.upload.release(Instant::now());
        }
        if wanted && self.terms.version == Version::Http11 {
            headers::remove_hop_by_hop(&mut head.fields);
            head.fields.retain(|known, _| known != Name::ContentLength);
            let reason = Some(head.reason.of(head.fields.text()));
            answer::write_status(&mut self.interim, self.terms, head.status, reason);
            head.fields.write_to(&mut self.interim);
            self.interim.extend_from_slice(b"\r\n");
        }
        self.connection.shard.buffers.give_fields(head.fields);
    }

    /// Writes what it can of the informational responses.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        /// A client that takes nothing is told no more of them than this.
        const INTERIM_BYTES_MAX: usize = 256 * 1024;
        if self.interim.is_empty() {
            return Ok(());
        }
        let (mut written, mut moved) = (0, false);
        let stream = &mut self.connection.wire.stream;
        let polled = buffer::poll_write(cx, stream, &self.interim, &mut written, &mut moved);
        self.interim.drain(..written);
        if self.interim.len() > INTERIM_BYTES_MAX {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        match polled {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Turns a backend's response into the client's.
    async fn accept(
        &mut self,
        mut head: ResponseHead,
        link: Link,
        mut flight: Flight,
        edits: Vec<Edit>,
    ) -> Result<After, ProxyError> {
        let Ok(framing) = framing::of_response(&head, &self.method) else {
            flight.fail(Failure::Protocol);
            return Err(ProxyError::Backend(Failure::Protocol));
        };
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(head, link, flight, edits).await;
        }
        let said = headers::Persistence::of(&head.fields);
        let framed_twice = framing == Framing::Chunked && head.fields.has(Name::ContentLength);
        let reusable = head.version == Version::Http11 && !said.close && !framed_twice;
        let declared = match self.terms.trailers {
            true => Declared::by(&head.fields),
            false => Declared::default(),
        };
        headers::remove_hop_by_hop(&mut head.fields);
        self.edit_response(flight.backend.id, &mut head, edits);
        let (shape, ends) = match (framing, self.terms.version) {
            (Framing::Empty | Framing::Length(_), _) => (Shape::Plain, false),
            (Framing::Chunked | Framing::UntilClose, Version::Http11) => {
                (Shape::Chunked(declared), false)
            }
            // A client of HTTP/1.0 knows no chunks: its connection ends with the body.
            (Framing::Chunked | Framing::UntilClose, Version::Http10) => (Shape::Plain, true),
        };
        // Whether a body that nobody has asked for yet will come nobody knows.
        let keeps = self.terms.keeps
            && !ends
            && self.upload.held_until().is_none()
            && !self.connection.shard.is_draining();
        let mut out = self.connection.shard.buffers.take_output();
        out.append(&mut self.interim);
        self.write_response_head(&mut out, &mut head, framing, &shape, keeps);
        self.connection.shard.buffers.give_fields(head.fields);
        let (mut link, now) = (link, self.answered);
        let download = Download {
            pump: Pump::new(framing, shape, out),
            input: std::mem::take(&mut link.wire.input),
            link: Some(link),
            reusable: reusable && framing != Framing::UntilClose,
            ends,
            flight: Some(flight),
            progress: now,
            waited: false,
        };
        Ok(self.deliver(download, keeps).await)
    }

    fn write_response_head(
        &self,
        out: &mut Vec<u8>,
        head: &mut ResponseHead,
        framing: Framing,
        shape: &Shape,
        keeps: bool,
    ) {
        let sized = matches!(framing, Framing::Length(_))
            || (framing == Framing::Empty && self.terms.is_head);
        if !sized {
            head.fields.retain(|known, _| known != Name::ContentLength);
        }
        let reason = head.reason.of(head.fields.text());
        answer::write_status(out, self.terms, head.status, Some(reason));
        head.fields.write_to(out);
        if let Shape::Chunked(_) = shape {
            write_line(out, b"transfer-encoding", b"chunked");
        }
        if !head.fields.has(Name::Date) {
            let dates = &self.connection.shard.dates;
            dates.with(|date| write_line(out, b"date", date.as_bytes()));
        }
        self.terms.write_connection(out, keeps);
        out.extend_from_slice(b"\r\n");
    }

    /// Carries the response to the client, and what is left of the request's body to the backend.
    async fn deliver(&mut self, mut download: Download, keeps: bool) -> After {
        let delivered = poll_fn(|cx| self.poll_deliver(cx, &mut download)).await;
        let buffers = &self.connection.shard.buffers;
        download.input.release(buffers);
        buffers.give_output(download.pump.out);
        match delivered {
            Err(Lost::Backend) if download.ends => return After::Reset,
            Err(_) => return After::Close,
            Ok(()) => {}
        }
        self.connection.idle_since = match download.waited {
            true => Instant::now(),
            false => download.progress,
        };
        let whole = self.connection.discard(Some(self.upload)).await;
        if whole && keeps {
            After::Next
        } else {
            self.connection.close(whole)
        }
    }

    fn poll_deliver(
        &mut self,
        cx: &mut Context<'_>,
        download: &mut Download,
    ) -> Poll<Result<(), Lost>> {
        // A body that is still held back is not wanted: the response is there.
        if !self.upload.is_over()
            && self.upload.held_until().is_none()
            && let Some(mut link) = download.link.take()
        {
            let polled = self.poll_upload(cx, &mut link);
            download.link = Some(link);
            if let Poll::Ready(Err(_)) = polled {
                return Poll::Ready(Err(Lost::Client));
            }
        }
        let keepalive = &self.slot.balancer.upstream.settings.keepalive;
        let sent = self.upload.is_over() && self.upload.is_whole();
        let Connection {
            wire, shard, timer, ..
        } = &mut *self.connection;
        let timeout = loop {
            let read = download.poll_read(cx, shard);
            if download.pump.is_read() {
                download.release(shard, sent, keepalive);
            }
            let written = download
                .pump
                .poll_write(cx, &mut download.input, &mut wire.stream);
            match written {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Lost::Client)),
                Poll::Pending => break self.view.snapshot.config.timeouts.response,
            }
            if download.pump.fault().is_some() {
                download.end(Failure::Reset);
                return Poll::Ready(Err(Lost::Backend));
            }
            if download.pump.is_read() {
                return Poll::Ready(Ok(()));
            }
            if read.is_pending() {
                if self.upload.is_over() && wire.poll_gone(cx, &shard.buffers).is_ready() {
                    return Poll::Ready(Err(Lost::Client));
                }
                break self.slot.balancer.upstream.settings.idle_timeout;
            }
        };
        download.waited = true;
        if download.pump.has_moved() {
            download.progress = Instant::now();
        }
        ready!(timer.poll(cx, download.progress + timeout));
        download.end(Failure::Timeout);
        Poll::Ready(Err(Lost::Backend))
    }

    /// The policy's word on the response, from the pick and from its `respond` hook.
    fn edit_response(&self, backend: BackendId, head: &mut ResponseHead, edits: Vec<Edit>) {
        policy::apply(edits, &mut head.fields);
        if self.slot.wants_responses() {
            let fields = std::mem::take(&mut head.fields);
            let reply = self.slot.respond(backend, head.status, fields);
            head.fields = reply.fields;
            policy::apply(reply.edits, &mut head.fields);
        }
    }

    /// Opens the tunnel that a client asked for and a backend agreed to (RFC 9110, 7.8).
    async fn switch(
        &mut self,
        mut head: ResponseHead,
        link: Link,
        mut flight: Flight,
        edits: Vec<Edit>,
    ) -> Result<After, ProxyError> {
        let agreed = headers::requested_upgrade(&head.fields);
        let Some(token) = self.switch.filter(|token| agreed.as_deref() == Some(token)) else {
            flight.fail(Failure::Protocol);
            return Err(ProxyError::Backend(Failure::Protocol));
        };
        headers::remove_hop_by_hop(&mut head.fields);
        head.fields.retain(|known, _| known != Name::ContentLength);
        self.edit_response(flight.backend.id, &mut head, edits);
        let mut out = std::mem::take(&mut self.interim);
        let reason = head.reason.of(head.fields.text());
        answer::write_status(&mut out, self.terms, head.status, Some(reason));
        head.fields.write_to(&mut out);
        write_line(&mut out, b"connection", b"upgrade");
        write_line(&mut out, b"upgrade", token.as_bytes());
        out.extend_from_slice(b"\r\n");
        let tunnel = Tunnel {
            link: End {
                early: link.wire.input.data().to_vec(),
                stream: link.wire.stream,
            },
            flight,
            idle_timeout: self.slot.balancer.upstream.settings.idle_timeout,
        };
        match self.connection.write(&out).await {
            Ok(()) => Ok(After::Tunnel(Box::new(tunnel))),
            Err(_) => Ok(After::Close),
        }
    }
}

/// Whose side a response was lost on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lost {
    Client,
    Backend,
}

/// A backend's body on its way to a client.
struct Download {
    pump: Pump,
    /// What was read over the link, which may be at another request before all of it is written.
    input: Input,
    link: Option<Link>,
    /// The link may carry another exchange after this one.
    reusable: bool,
    /// The client learns of the end by the end of its connection.
    ends: bool,
    flight: Option<Flight>,
    progress: Instant,
    /// Some of it did not go through at once.
    waited: bool,
}

impl Download {
    fn poll_read(&mut self, cx: &mut Context<'_>, shard: &Shard) -> Poll<()> {
        match &mut self.link {
            Some(link) => {
                let stream = &mut link.wire.stream;
                self.pump
                    .poll_read(cx, &mut self.input, stream, &shard.buffers)
            }
            None => Poll::Ready(()),
        }
    }

    /// The whole body has come: the backend is done, and the connection can carry the next exchange.
    fn release(&mut self, shard: &Shard, sent: bool, keepalive: &Keepalive) {
        let Some(mut flight) = self.flight.take() else {
            return;
        };
        flight.bytes = self.pump.content;
        // What is behind the end of a response belongs to nobody.
        let clean = self.input.data().len() == self.pump.unwritten();
        if let Some(link) = self.link.take()
            && self.reusable
            && sent
            && clean
        {
            shard
                .pool
                .put(&flight.backend, link, keepalive, self.progress);
        }
    }

    fn end(&mut self, failure: Failure) {
        if let Some(flight) = &mut self.flight {
            flight.bytes = self.pump.content;
            flight.end(Ending::Failed(failure));
        }
    }
}
