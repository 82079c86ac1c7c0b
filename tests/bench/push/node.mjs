// A push server as it is often written: Node.js, the package ws, Redis between the processes. WebSocket at /sub, long polling at /poll,
// messages to all by POST /pub. Arguments: port, Redis's port, the folder of the packages.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

const [port, redisPort, folder] = process.argv.slice(2);
const need = createRequire(`${folder}/package.json`);
const { WebSocketServer } = need('ws');
const { createClient } = need('redis');

const redis = createClient({ url: `redis://127.0.0.1:${redisPort}` });
const listener = redis.duplicate();
await redis.connect();
await listener.connect();

const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, clientTracking: true });
let waiting = [];
await listener.subscribe('all', (text) => {
  const message = Buffer.from(text);
  for (const socket of sockets.clients) socket.send(message, { binary: false });
  for (const answer of waiting.splice(0)) answer.end(message);
});

const server = createServer({ requestTimeout: 0, headersTimeout: 0 }, (request, answer) => {
  if (request.url !== '/poll' && request.url !== '/pub') return answer.writeHead(404).end();
  if (request.method !== 'POST') {
    waiting.push(answer);
    answer.on('close', () => { if (!answer.writableEnded) waiting = waiting.filter((other) => other !== answer); });
    return;
  }
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', async () => {
    await redis.publish('all', Buffer.concat(pieces).toString());
    answer.end();
  });
});
server.on('upgrade', (request, socket, head) => sockets.handleUpgrade(request, socket, head, () => {}));
server.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 });
