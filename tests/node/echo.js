// A WebSocket server on top of Express: tells how it was asked, then sends back every message as it came.
'use strict';

const express = require('express');
const { WebSocketServer } = require('ws');
const { announce } = require('./program');

const server = express().listen(0, '127.0.0.1', () => announce({ port: server.address().port }));

new WebSocketServer({ server, path: '/echo' }).on('connection', (socket, request) => {
  socket.send(JSON.stringify({ version: request.httpVersion, url: request.url, headers: request.headers }));
  socket.on('message', (message, isBinary) => socket.send(message, { binary: isBinary }));
});
