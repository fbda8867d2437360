// An Express application: `node app.js '{"name": "a", "delayMs": 0}'`. Says where it listens in a line of JSON.
'use strict';

const express = require('express');
const { announce, settings } = require('./program');

const { name, delayMs = 0 } = settings();
const app = express();
app.set('trust proxy', 'loopback');

app.get('/', (request, response) => {
  setTimeout(() => response.json({ app: name }), delayMs);
});

// A route that no other application has.
app.get(`/only-${name}`, (request, response) => {
  response.json({ app: name });
});

// What arrives here, as Node and as Express see it.
app.get('/request', (request, response) => {
  response.json({
    version: request.httpVersion,
    headers: request.headers,
    ip: request.ip,
    protocol: request.protocol,
    hostname: request.hostname,
  });
});

const server = app.listen(0, '127.0.0.1', () => announce({ port: server.address().port }));
