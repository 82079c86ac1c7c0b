// The live page. Listens to the push server as the portal's own pages do, in the text form of generation 4.

const config = JSON.parse(document.querySelector('#live').dataset.config);
const paths = location.protocol === 'https:' ? config.secure : config.plain;
const [socketPath, pollPath, publishPath] = paths.map(path => path.replace('#DOMAIN#', location.host));
const at = id => document.getElementById(id);

// === Listening: comes back with the id of the last message, and misses nothing.

const FRAME = /#!NGINXNMS!#(.*?)#!NGINXNME!#/g;
// At first: all that is kept.
let last = '0'.repeat(26);
let failures = 0;

function query() {
  return `?CHANNEL_ID=${encodeURIComponent(config.channels)}&revision=19&mid=${last}`;
}

function hear(text) {
  for (const [, frame] of text.matchAll(FRAME)) {
    const message = JSON.parse(frame);
    last = message.mid;
    take(message.text);
  }
}

function listen() {
  const socket = new WebSocket(socketPath + query());
  socket.onopen = () => { failures = 0; show('WebSocket', true); };
  socket.onmessage = event => hear(event.data);
  socket.onclose = event => {
    show(`closed ${event.code}`, false);
    if (event.code === 4010) return setTimeout(() => location.reload(), later());
    failures += 1;
    // Some networks let no WebSocket through.
    setTimeout(failures > 3 ? poll : listen, later());
  };
}

async function poll() {
  show('long polling', true);
  try {
    const answer = await fetch(pollPath + query());
    if (answer.status === 200) hear(await answer.text());
    else if (answer.status === 304) last = answer.headers.get('Last-Message-Id') ?? last;
    else throw new Error(answer.status);
    poll();
  } catch {
    show('away', false);
    setTimeout(listen, later());
  }
}

// Not all at once after an outage.
function later() {
  return Math.min(500 * 2 ** failures, 30000) * (0.5 + Math.random() / 2);
}

function show(state, isGood) {
  at('state').textContent = state;
  at('state').className = `verdict ${isGood ? 'good' : 'bad'}`;
  if (isGood) look(true);
}

// === What is told.

function take({ module_id: module, command, params }) {
  if (module === 'demo' && command === 'say') line('chat', `${params.name}: ${params.text}`, params.id === config.id);
  if (module === 'online') look(false);
  if (module === 'call') heardOfCall(command, params);
}

function line(list, text, isOwn) {
  const item = document.createElement('li');
  item.textContent = text;
  if (isOwn) item.className = 'own';
  at(list).append(item);
  item.scrollIntoView({ block: 'nearest' });
}

// === Asking the portal.

async function ask(path, fields) {
  const body = new URLSearchParams({ token: config.token, ...fields });
  const answer = await fetch(path, { method: 'POST', body });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

at('say').addEventListener('submit', async event => {
  event.preventDefault();
  const input = event.target.elements.text;
  try {
    await ask('/live/say', { text: input.value });
    input.value = '';
  } catch (error) {
    line('chat', `not said: ${error.message}`, false);
  }
});

// === Who is online.

async function look(isNew) {
  const people = await ask('/live/online', isNew ? { new: 1 } : {}).catch(() => null);
  if (people === null) return;
  at('online').replaceChildren(...people.map(person => {
    const item = document.createElement('li');
    item.textContent = person.id === config.id ? `${person.name} (you)` : person.name;
    if (person.id !== config.id) {
      const button = document.createElement('button');
      button.textContent = 'Call';
      button.onclick = () => begin(person);
      item.append(button);
    }
    return item;
  }));
}

setInterval(() => look(false), 30000);

// === Calls: the signalling alone. The portal carries the first steps; then both write to each other.

let peer = null;

function step(text, canAnswer, canHangUp) {
  at('call').textContent = text;
  at('answer').hidden = !canAnswer;
  at('hangup').hidden = !canHangUp;
}

async function begin(person) {
  peer = { senderId: person.id, senderName: person.name };
  step(`Calling ${person.name} …`, false, true);
  await ask('/live/call', { to: person.id, command: 'incoming' });
}

async function heardOfCall(command, params) {
  line('events', `${command} from ${params.senderName}`, false);
  const isPeer = peer?.senderId === params.senderId;
  if (command === 'Call::incoming') {
    peer = params;
    step(`${params.senderName} is calling`, true, true);
  } else if (command === 'Call::answer' && isPeer) {
    peer = params;
    step(`In a call with ${params.senderName}`, false, true);
    await write(peer, 'Call::ping');
  } else if (command === 'Call::hangup' && isPeer) {
    peer = null;
    step(`${params.senderName} has hung up.`, false, false);
  }
}

at('answer').onclick = async () => {
  step(`In a call with ${peer.senderName}`, false, true);
  await ask('/live/call', { to: peer.senderId, command: 'answer' });
  await write(peer, 'Call::ping');
};

at('hangup').onclick = async () => {
  const { senderId, senderName } = peer;
  peer = null;
  step(`You have hung up on ${senderName}.`, false, false);
  await ask('/live/call', { to: senderId, command: 'hangup' });
};

// From browser to browser: the other's public id is signed by the portal. One message of the protocol buffers of generation 4.
async function write({ publicId, signature }, command) {
  const params = { senderId: config.id, senderName: config.name };
  const body = JSON.stringify({ module_id: 'call', command, params, extra: {} });
  const receiver = [...field(1, bytes(publicId)), ...field(3, bytes(signature))];
  const message = [...field(1, receiver), ...field(3, [...new TextEncoder().encode(body)]), 4 << 3, 60];
  const batch = field(1, field(1, field(1, message)));
  await fetch(`${publishPath}?CHANNEL_ID=${encodeURIComponent(config.own)}`, { method: 'POST', body: new Uint8Array(batch) });
}

function field(number, content) {
  return [number << 3 | 2, ...varint(content.length), ...content];
}

function varint(value) {
  return value < 128 ? [value] : [value & 127 | 128, ...varint(value >> 7)];
}

function bytes(hexadecimal) {
  return hexadecimal.match(/../g).map(pair => parseInt(pair, 16));
}

listen();
