// Sends messages to the server of echo.js, many at a time, and compares what comes back:
// `node echo-client.js '{"url": "ws://127.0.0.1:8080/echo", "messages": 1000}'`.
'use strict';

const crypto = require('node:crypto');
const WebSocket = require('ws');
const { announce, settings } = require('./program');

const { url, messages } = settings();
const socket = new WebSocket(url);

// Text and binary in turn, from nothing to 64 KiB: all three forms in which a frame states its length.
const sizes = [0, 1, 125, 126, 1000, 65535, 65536];
const message = (index) => {
  const bytes = crypto.createHash('sha256').update(String(index)).digest('hex').repeat(1100);
  const text = bytes.slice(0, sizes[index % sizes.length]);
  return index % 2 === 0 ? text : Buffer.from(text);
};

let request;
let received = 0;
let wrong = 0;

socket.on('open', () => {
  for (let index = 0; index < messages; index += 1) socket.send(message(index));
});

socket.on('message', (data, isBinary) => {
  if (request === undefined) {
    request = JSON.parse(data);
    return;
  }
  const expected = message(received);
  const same = isBinary === (typeof expected !== 'string') && data.equals(Buffer.from(expected));
  if (!same) wrong += 1;
  received += 1;
  if (received === messages) socket.close(1000, 'done');
});

socket.on('close', (code) => {
  announce({ request, received, wrong, code });
  process.exit(0);
});

socket.on('error', (error) => {
  announce({ error: error.message });
  process.exit(1);
});
