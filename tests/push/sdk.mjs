// The portal's public client, headless, against a push server: generations 3, 4 and 5, WebSocket and long polling.
// Arguments: the front's address, the portal's address of the push server, the file with the key, the folder of the client's package.
// Prints one line per scenario; fails with the first that does not hold.
import { createHmac, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [front, portal, keyFile, folder] = process.argv.slice(2);
const key = readFileSync(keyFile, 'utf8').trim();
const need = createRequire(`${folder}/package.json`);
const { WebSocket } = need('ws');
// Before there is a window: one of its dependencies looks at it when it is loaded.
const { B24PullClientManager } = await import(pathToFileURL(`${folder}/node_modules/@bitrix24/b24jssdk/dist/esm/index.mjs`));
// The client closes sockets that are still connecting. In a browser an error that nobody listens to ends nothing; here it would end
// the program.
class Socket extends WebSocket {
  constructor(...given) {
    super(...given);
    this.on('error', () => {});
  }
}
globalThis.WebSocket = Socket;
globalThis.XMLHttpRequest = need('xhr2');
globalThis.window = { addEventListener() {}, removeEventListener() {}, WebSocket: Socket };
globalThis.document = { location: { href: `http://${front}/` } };

const PATIENCE = 30_000;
const sign = (data, hash = 'sha1') => createHmac(hash, key).update(data);
const id = () => randomBytes(16).toString('hex');
const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

class User {
  constructor(number, version, hasSockets) {
    Object.assign(this, { number, version, hasSockets, priv: id(), pub: id(), got: [], statuses: [], waiting: [] });
  }

  token() {
    const seconds = Math.floor(Date.now() / 1000);
    const claims = { iss: 'x', iat: seconds, exp: seconds + 3600, sub: String(this.number), chan: SHARED };
    const signed = `${part({ typ: 'JWT', alg: 'HS256' })}.${part(claims)}`;
    return `${signed}.${sign(signed, 'sha256').digest('base64url')}`;
  }

  receiver() {
    return { user_id: this.number, public_id: this.pub, signature: sign(`public:${this.pub}`).digest('hex'), start: past, end: future };
  }

  config() {
    const item = (data) => `${data}.${sign(data).digest('hex')}`;
    return {
      server: {
        version: this.version, server_enabled: true, mode: 'personal', config_timestamp: 0,
        websocket_enabled: this.hasSockets, websocket: `ws://${front}/bitrix/subws/`, websocket_secure: '',
        long_polling: `http://${front}/bitrix/sub/`, long_pooling_secure: '',
        publish_enabled: true, publish: `http://${front}/bitrix/rest/`, publish_secure: '',
      },
      api: { revision_web: 19, revision_mobile: 3 },
      channels: {
        private: { id: item(`${this.priv}:${this.pub}`), public_id: this.pub, type: 'private', start: past, end: future },
        shared: { id: item(SHARED), type: 'shared', start: past, end: future },
      },
      publicChannels: {}, serverTime: new Date().toISOString(),
      ...(this.version >= 5 ? { jwt: this.token(), exp: Math.floor(Date.now() / 1000) + 3600 } : {}),
    };
  }

  async start(others) {
    const receivers = Object.fromEntries(others.map((user) => [user.number, user.receiver()]));
    const answer = (result) => ({ getData: () => ({ result }) });
    const make = async ({ method }) => answer(method === 'pull.config.get' ? this.config() : receivers);
    const b24 = { actions: { v2: { call: { make } } }, callMethod: async () => answer(receivers) };
    this.client = new B24PullClientManager({ b24, userId: this.number, siteId: 's1', serverEnabled: true, skipStorageInit: true });
    for (const type of ['server', 'client']) {
      this.client.subscribe({ type, moduleId: 'test', callback: ({ command, params }) => this.take(type, command, params) });
    }
    await this.client.start();
  }

  take(type, command, params) {
    this.got.push(`${type}:${command}:${params.n}`);
    this.waiting.splice(0).forEach((look) => look());
  }

  // Until it has got all of these; fails where it got something else.
  async has(expected) {
    const end = Date.now() + PATIENCE;
    while (this.got.length < expected.length && Date.now() < end) {
      await new Promise((resolve) => { this.waiting.push(resolve); setTimeout(resolve, 200); });
    }
    const [got, wanted] = [JSON.stringify(this.got), JSON.stringify(expected)];
    if (got !== wanted) throw new Error(`user ${this.number}, generation ${this.version}: got ${got}, expected ${wanted}`);
  }
}

const SHARED = id();
const past = new Date(Date.now() - 60_000).toISOString();
const future = new Date(Date.now() + 3_600_000).toISOString();

// As the portal does it: text in generation 3 and 4, calls in generation 5.
async function publish(user, n) {
  const body = { module_id: 'test', command: 'hello', params: { n }, extra: { revision_web: 19 } };
  let answer;
  if (user.version >= 5) {
    const params = { userList: [user.number], channelList: [], body, user_params: [], dictionary: [], expiry: 86400 };
    const text = JSON.stringify([{ jsonrpc: '2.0', method: 'publish', params }]);
    answer = await fetch(`http://${portal}/bitrix/api/?signature=${sign(text).digest('hex')}`, { method: 'POST', body: text });
    await answer.json();
  } else {
    const init = { method: 'POST', body: JSON.stringify(body), headers: { 'Message-Expiry': '86400' } };
    answer = await fetch(`http://${portal}/bitrix/pub/?CHANNEL_ID=${user.priv}`, init);
  }
  if (answer.status !== 200) throw new Error(`publishing: ${answer.status}`);
}

async function online(user) {
  const answer = await fetch(`http://${portal}/bitrix/pub/?CHANNEL_ID=${user.priv}`);
  return (await answer.json()).infos.length === 1;
}

async function scenario(version, hasSockets) {
  const [one, two] = [new User(1, version, hasSockets), new User(2, version, hasSockets)];
  await one.start([two]);
  await two.start([one]);
  const expected = [];
  for (let n = 0; n < 3; n++) {
    await publish(one, n);
    expected.push(`server:hello:${n}`);
  }
  await one.has(expected);
  if (version < 5 && !(await online(one))) throw new Error('not online');
  // Away without a goodbye; what is published meanwhile is told once.
  if (hasSockets) {
    one.client.connector.socket.terminate();
    for (let n = 3; n < 6; n++) {
      await publish(one, n);
      expected.push(`server:hello:${n}`);
    }
    await one.has(expected);
  }
  if (version > 3) {
    await two.client.sendMessage([1], 'test', 'hi', { n: 7 }, 60);
    expected.push('client:hi:7');
    await one.has(expected);
  }
  if (version >= 5) {
    if ((await two.client.ping()) === undefined) throw new Error('ping');
    const channels = await two.client.listChannels();
    if (!JSON.stringify(channels).includes(SHARED)) throw new Error(`channels ${JSON.stringify(channels)}`);
    await two.client.getUsersLastSeen([1]);
    const three = new User(3, version, hasSockets);
    const seen = new Promise((resolve, reject) => two.client.subscribeUserStatusChange(3, resolve).then(() => three.start([]), reject));
    const status = await Promise.race([seen, new Promise((resolve) => setTimeout(resolve, PATIENCE))]);
    if (status?.isOnline !== true) throw new Error(`status ${JSON.stringify(status)}`);
    three.client.destroy();
  }
  // Nothing comes late or twice.
  await new Promise((resolve) => setTimeout(resolve, 1000));
  await one.has(expected);
  one.client.destroy();
  two.client.destroy();
  console.log(`generation ${version}, ${hasSockets ? 'WebSocket' : 'long polling'}: ${expected.length} messages, each once`);
}

for (const [version, hasSockets] of [[3, true], [4, true], [5, true], [3, false], [4, false]]) {
  await scenario(version, hasSockets);
}
process.exit(0);
