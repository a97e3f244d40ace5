// openai and the AI SDK against a server; see clients.sh.

import OpenAI from "openai";
import { generateText, streamText } from "ai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";

const [url, model, failing] = process.argv.slice(2);
const prompt = "Write one sentence reviewing a film.";
let failures = 0;

async function check(name, run) {
  try {
    console.log(`ok    ${name}: ${JSON.stringify(await run())}`);
  } catch (error) {
    failures += 1;
    console.log(`FAIL  ${name}: ${error.name}: ${error.message}`);
  }
}

function some(text) {
  if (!text || !text.trim()) throw new Error("no text");
  return text.trim().slice(0, 40);
}

async function openai(base, name, stream) {
  const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "none" });
  const messages = [{ role: "user", content: prompt }];
  const asked = { model: name, messages, max_tokens: 24, seed: 1, stream };
  const answer = await client.chat.completions.create(asked);
  if (!stream) return some(answer.choices[0].message.content);
  let text = "";
  for await (const chunk of answer) text += chunk.choices[0]?.delta?.content || "";
  return some(text);
}

async function sdk(base, name, stream) {
  const provider = createOpenAICompatible({ name: "here", baseURL: `${base}/v1` });
  const asked = { model: provider(name), prompt, maxOutputTokens: 24, seed: 1 };
  if (!stream) return some((await generateText(asked)).text);
  let text = "";
  let failed;
  const answer = streamText({ ...asked, onError: ({ error }) => { failed = error; } });
  for await (const part of answer.textStream) text += part;
  if (failed) throw failed;
  return some(text);
}

async function requestsFailed() {
  const text = await (await fetch(`${failing}/metrics`)).text();
  return Number(text.match(/^aisp_failed_total (\d+)/m)[1]);
}

async function once(client) {
  const before = await requestsFailed();
  try {
    await client(failing, `${model}:aisp`, false);
  } catch {
    const sent = (await requestsFailed()) - before;
    if (sent !== 1) throw new Error(`sent ${sent} times`);
    return "sent once";
  }
  throw new Error("the failure was not seen");
}

for (const [name, client] of [["openai-node", openai], ["AI SDK", sdk]]) {
  for (const asked of [model, `${model}:aisp`])
    for (const stream of [false, true])
      await check(`${name} ${asked}${stream ? " stream" : ""}`, () => client(url, asked, stream));
  await check(`${name} failed search`, () => once(client));
}
process.exit(failures ? 1 : 0);
