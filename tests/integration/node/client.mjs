// The official Node client against the gateway. Run by test_node.py, which gives everything by environment:
// SLUICE_URL, SLUICE_KEY, SLUICE_MODEL, SLUICE_CONTROL (the model server's control address), SLUICE_CLIENT (package name).
import assert from 'node:assert/strict';
import { test } from 'node:test';

const { default: OpenAI } = await import(process.env.SLUICE_CLIENT);
const { SLUICE_URL: url, SLUICE_KEY: key, SLUICE_MODEL: model, SLUICE_CONTROL: control } = process.env;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, timeout: 30000 });
const messages = [{ role: 'user', content: 'hello there' }];
const fault = (f) => fetch(`${control}/faults`, { method: 'POST', body: JSON.stringify(f) });
const forget = () => fetch(`${control}/faults`, { method: 'DELETE' });
const requests = async () => (await fetch(`${control}/requests`)).json();
const bodyOf = (entry) => Buffer.from(entry.body, 'base64').toString();

async function until(condition, what, seconds = 10) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((done) => setTimeout(done, 10));
  }
}

test.beforeEach(forget);

test('list and retrieve models', async () => {
  const ids = [];
  for await (const m of client.models.list()) ids.push(m.id);
  assert.ok(ids.includes(model));
  assert.equal((await client.models.retrieve(model)).id, model);
  await assert.rejects(client.models.retrieve('org/none:tag'), OpenAI.NotFoundError);
});

test('chat', async () => {
  const { data, response } = await client.chat.completions.create({ model, messages, max_tokens: 3 }).withResponse();
  assert.equal(data.choices[0].message.content, 'a0 a1 a2 ');
  assert.deepEqual(data.x_unknown, { kept: [1, 2.5, 'é'] });
  assert.ok(data._request_id);
  assert.ok(Number(response.headers.get('x-sluice-cost-usd')) >= 0);
  assert.equal(response.headers.get('x-sluice-network'), 'native');
});

test('streamed chat', async () => {
  let text = '';
  let chunks = 0;
  for await (const chunk of await client.chat.completions.create({ model, messages, max_tokens: 4, stream: true })) {
    text += chunk.choices[0].delta.content ?? '';
    chunks += 1;
  }
  assert.equal(text, 'a0 a1 a2 a3 ');
  assert.equal(chunks, 6);
});

test('streamed chat with usage', async () => {
  const chunks = [];
  for await (const chunk of await client.chat.completions.create({
    model, messages, max_tokens: 4, stream: true, stream_options: { include_usage: true } })) chunks.push(chunk);
  assert.equal(chunks.at(-1).usage.completion_tokens, 4);
});

test('stream helper', async () => {
  const final = await client.chat.completions.stream({ model, messages, max_tokens: 3 }).finalContent();
  assert.equal(final, 'a0 a1 a2 ');
});

test('tools and unknown fields go through', async () => {
  const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: {} } } }];
  await client.chat.completions.create({ model, messages, tools, top_k: 7, guided: { a: [1, null] } });
  const sent = JSON.parse(bodyOf((await requests()).at(-1)));
  assert.deepEqual(sent.tools, tools);
  assert.equal(sent.top_k, 7);
  assert.deepEqual(sent.guided, { a: [1, null] });
});

test('responses, streamed and not', async () => {
  assert.ok((await client.responses.create({ model, input: 'hello' })).output_text.startsWith('a0 '));
  const types = [];
  for await (const event of await client.responses.create({ model, input: 'hello', stream: true })) types.push(event.type);
  assert.equal(types[0], 'response.created');
  assert.equal(types.at(-1), 'response.completed');
});

for (const upstream of ['float', 'base64']) {
  test(`embeddings from an upstream that gives ${upstream}`, async () => {
    await fault({ count: -1, embeddings: upstream });
    const expected = [0.5, -0.25, 0.125, 1, -2, 0, 3.5, -0.0625];
    const plain = await client.embeddings.create({ model, input: ['x', 'y'] });
    assert.deepEqual(plain.data.map((d) => Array.from(d.embedding)), [expected, expected]);
    const float = await client.embeddings.create({ model, input: 'x', encoding_format: 'float' });
    assert.deepEqual(float.data[0].embedding, expected);
    const base64 = await client.embeddings.create({ model, input: 'x', encoding_format: 'base64' });
    assert.equal(typeof base64.data[0].embedding, 'string');
  });
}

test('errors have the right class', async () => {
  const wrong = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'sk-wrong', maxRetries: 0 });
  await assert.rejects(wrong.models.list(), (e) => e instanceof OpenAI.AuthenticationError && e.code === 'invalid_api_key' && Boolean(e.requestID));
  const ask = () => client.chat.completions.create({ model, messages });
  await assert.rejects(client.chat.completions.create({ model: 'none', messages }),
    (e) => e instanceof OpenAI.NotFoundError && e.code === 'model_not_found');
  const body = JSON.stringify({ error: { message: 'no', type: 't', param: 'p', code: 'c' } });
  await fault({ status: 400, body });
  await assert.rejects(ask(), (e) => e instanceof OpenAI.BadRequestError && e.code === 'c' && e.param === 'p');
  await fault({ status: 422, body });
  await assert.rejects(ask(), OpenAI.UnprocessableEntityError);
  await fault({ status: 500, body: 'x' });
  await assert.rejects(ask(), (e) => e instanceof OpenAI.InternalServerError && e.status === 502 && e.code === 'upstream_error');
  await fault({ status: 429, body: '{}' });
  await assert.rejects(ask(), (e) => e instanceof OpenAI.RateLimitError && Number(e.headers.get('retry-after-ms')) > 0);
});

test('cancel in mid-stream frees the upstream', async () => {
  await fault({ infinite: true, chunk_delay_ms: 20 });
  const stream = await client.chat.completions.create({ model, messages, stream: true });
  let seen = 0;
  for await (const _ of stream) if (++seen === 5) break;
  const entry = await until(async () => { const e = (await requests()).at(-1); return e.end !== 'running' && e; }, 'the upstream call ended', 2);
  assert.equal(entry.end, 'cancelled');
});

test('abort before the first token frees the upstream', async () => {
  await fault({ head_delay_ms: 20000 });
  const abort = new AbortController();
  const call = client.chat.completions.create({ model, messages }, { signal: abort.signal });
  const failed = assert.rejects(call, OpenAI.APIUserAbortError);
  await until(async () => (await (await fetch(`${control}/state`)).json()).active === 1, 'the upstream call runs');
  abort.abort();
  await failed;
  await until(async () => (await requests()).at(-1).end === 'cancelled', 'the upstream call was cancelled', 2);
});

test('a stream that dies raises', async () => {
  for (const f of [{ die: 'mid' }, { no_finish: true, no_done: true }, { malformed_at: 2 }]) {
    await fault({ chunk_delay_ms: 5, ...f });
    await assert.rejects(async () => {
      for await (const _ of await client.chat.completions.create({ model, messages, max_tokens: 8, stream: true }));
    }, OpenAI.APIError);
  }
});

test('retries come soon and are not multiplied', async () => {
  const retrying = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 2 });
  const before = (await requests()).length;
  await fault({ count: 2, status: 429, body: '{}', headers: { 'retry-after-ms': '20' } });
  await retrying.chat.completions.create({ model, messages });
  assert.equal((await requests()).length, before + 3);
});

test('the client\'s own timeout is a deadline', async () => {
  await fault({ head_delay_ms: 20000 });
  await assert.rejects(client.chat.completions.create({ model, messages }, { timeout: 700 }));
  await until(async () => (await requests()).at(-1).end === 'cancelled', 'the upstream call was cancelled', 3);
});
