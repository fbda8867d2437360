// An Express application under Node's `cluster`: as many workers as CPUs behind one address, and a new one for each
// that dies. `{"scheduling": "none"}` has the workers accept connections by themselves; otherwise the primary hands
// them over, as Node does by default.
'use strict';

const cluster = require('node:cluster');
const os = require('node:os');

if (cluster.isPrimary) {
  const { announce, settings } = require('./program');
  if (settings().scheduling === 'none') cluster.schedulingPolicy = cluster.SCHED_NONE;
  // With one worker only, its death would leave nobody.
  const workers = Math.max(2, os.cpus().length);
  let listening = 0;
  cluster.on('listening', (worker, { port }) => {
    listening += 1;
    if (listening === workers) announce({ port, workers });
    if (listening > workers) announce({ replaced: listening - workers });
  });
  cluster.on('exit', () => cluster.fork());
  for (let index = 0; index < workers; index += 1) cluster.fork();
} else {
  const express = require('express');
  const app = express();
  app.all('/', (request, response) => {
    setTimeout(() => response.json({ pid: process.pid }), 2);
  });
  app.listen(0, '127.0.0.1');
  process.on('disconnect', () => process.exit(0));
}
