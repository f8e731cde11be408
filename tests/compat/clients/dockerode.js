// What programs in JavaScript do with dockerode; each check names itself when it fails.
"use strict";
const assert = require("node:assert/strict");
const { PassThrough } = require("node:stream");
const zlib = require("node:zlib");
const Docker = require(process.env.DOCKERODE);

const docker = new Docker({ socketPath: process.env.SOCKET });
const image = "busybox";

function text(stream) {
  return new Promise((resolve, reject) => {
    const parts = [];
    stream.on("data", (part) => parts.push(part));
    stream.on("end", () => resolve(Buffer.concat(parts).toString()));
    stream.on("error", reject);
  });
}

function ended(stream) {
  return new Promise((resolve, reject) => {
    stream.on("end", resolve);
    stream.on("error", reject);
  });
}

async function split(stream) {
  const out = new PassThrough();
  const err = new PassThrough();
  docker.modem.demuxStream(stream, out, err);
  const both = Promise.all([text(out), text(err)]);
  await ended(stream);
  out.end();
  err.end();
  return both;
}

function archive(name, content) {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write("0000644\0", 100);
  header.write("0000000\0", 108);
  header.write("0000000\0", 116);
  header.write(content.length.toString(8).padStart(11, "0") + "\0", 124);
  header.write("00000000000\0", 136);
  header.write("        ", 148);
  header.write("0", 156);
  header.write("ustar\x0000", 257);
  let sum = 0;
  for (const byte of header) sum += byte;
  header.write(sum.toString(8).padStart(6, "0") + "\0 ", 148);
  const body = Buffer.alloc(Math.ceil(content.length / 512) * 512);
  body.write(content);
  return Buffer.concat([header, body, Buffer.alloc(1024)]);
}

const checks = {
  async system() {
    assert.equal((await docker.ping()).toString(), "OK");
    assert.ok((await docker.version()).ApiVersion);
    assert.equal((await docker.info()).OSType, "linux");
  },

  async run() {
    const out = new PassThrough();
    const err = new PassThrough();
    const both = Promise.all([text(out), text(err)]);
    const [status, container] = await docker.run(
      image, ["sh", "-c", "echo out; echo err >&2; exit 3"], [out, err], { Tty: false },
    );
    out.end();
    err.end();
    assert.equal(status.StatusCode, 3);
    assert.deepEqual(await both, ["out\n", "err\n"]);
    await container.remove();
    await assert.rejects(container.inspect(), { statusCode: 404 });
  },

  async attach() {
    const container = await docker.createContainer({
      Image: image, Cmd: ["cat"], OpenStdin: true, StdinOnce: true, AttachStdin: true,
    });
    const stream = await container.attach({
      stream: true, stdin: true, stdout: true, stderr: true, hijack: true,
    });
    const both = split(stream);
    await container.start();
    stream.write("through\n");
    stream.end();
    assert.deepEqual(await both, ["through\n", ""]);
    assert.equal((await container.wait()).StatusCode, 0);
    await container.remove();
  },

  async life() {
    const container = await docker.createContainer({
      Image: image, name: "node-life", Cmd: ["sleep", "1000"], Labels: { role: "node" },
      Env: ["A=b"], HostConfig: { Memory: 64 << 20, Init: true, AutoRemove: false },
    });
    await container.start();
    const state = async () => (await container.inspect()).State;
    assert.equal((await state()).Status, "running");
    const listed = await docker.listContainers({ filters: { label: ["role=node"] } });
    assert.deepEqual(listed.map((found) => found.Names), [["/node-life"]]);
    await container.pause();
    assert.equal((await state()).Paused, true);
    await container.unpause();
    await container.update({ Memory: 128 << 20, MemorySwap: 256 << 20 });
    await container.rename({ name: "node-renamed" });
    assert.match((await container.top()).Processes.flat().join(" "), /sleep 1000/);
    const once = await container.stats({ stream: false });
    assert.ok(once.memory_stats.usage > 0);
    await container.restart({ t: 0 });
    await container.kill();
    assert.equal((await container.wait()).StatusCode, 137);
    await container.remove({ v: true });
  },

  async exec() {
    const container = await docker.createContainer({ Image: image, Cmd: ["sleep", "1000"] });
    await container.start();
    const exec = await container.exec({
      Cmd: ["sh", "-c", "cat; echo err >&2; exit 5"], AttachStdin: true, AttachStdout: true,
      AttachStderr: true, Env: ["A=b"],
    });
    const stream = await exec.start({ hijack: true, stdin: true });
    const both = split(stream);
    stream.write("through\n");
    stream.end();
    assert.deepEqual(await both, ["through\n", "err\n"]);
    assert.equal((await exec.inspect()).ExitCode, 5);
    const terminal = await container.exec({ Cmd: ["tty"], AttachStdout: true, Tty: true });
    const shown = await terminal.start({ Tty: true });
    assert.equal((await text(shown)).trim(), "/dev/pts/0");
    await container.putArchive(archive("file", "hello"), { path: "/tmp" });
    const got = await text(await container.getArchive({ path: "/tmp/file" }));
    assert.ok(got.includes("hello"));
    assert.ok((await container.changes()).some((change) => change.Path === "/tmp/file"));
    await container.remove({ force: true });
  },

  async logs() {
    const container = await docker.createContainer({
      Image: image, Cmd: ["sh", "-c", "for i in 1 2 3; do echo line$i; done; echo err >&2"],
    });
    await container.start();
    const [out, err] = await split(
      await container.logs({ follow: true, stdout: true, stderr: true }),
    );
    assert.deepEqual([out, err], ["line1\nline2\nline3\n", "err\n"]);
    await container.wait();
    const whole = await container.logs({ stdout: true, stderr: false, tail: 100 });
    assert.ok(whole.toString().includes("line3"));
    await container.remove();
  },

  async networks() {
    const network = await docker.createNetwork({ Name: "node-net", Labels: { a: "b" } });
    const volume = await docker.createVolume({ Name: "node-vol" });
    const server = await docker.createContainer({
      Image: image, name: "node-server", Cmd: ["sh", "-c", "echo hi >/v/i; httpd -f -h /v"],
      HostConfig: {
        NetworkMode: "node-net", Binds: ["node-vol:/v"],
        PortBindings: { "80/tcp": [{ HostPort: "" }] },
      },
      ExposedPorts: { "80/tcp": {} },
    });
    await server.start();
    assert.match((await server.inspect()).NetworkSettings.Ports["80/tcp"][0].HostPort, /^\d+$/);
    const out = new PassThrough();
    const read = text(out);
    const fetch = "until wget -qO- http://node-server/i; do sleep 0.1; done";
    const [, caller] = await docker.run(image, ["sh", "-c", fetch], out, {
      Tty: true, HostConfig: { NetworkMode: "node-net" },
    });
    out.end();
    assert.ok((await read).endsWith("hi\r\n"));
    await caller.remove();
    await network.disconnect({ Container: server.id });
    await network.connect({ Container: server.id });
    assert.equal(Object.keys((await network.inspect()).Containers).length, 1);
    await server.remove({ force: true });
    await network.remove();
    await volume.remove();
  },

  async events() {
    const stream = await docker.getEvents({ filters: { label: ["node-watched"] } });
    const seen = [];
    const done = new Promise((resolve) => {
      let rest = "";
      stream.on("data", (part) => {
        const lines = (rest + part).split("\n");
        rest = lines.pop();
        for (const line of lines.filter(Boolean)) seen.push(JSON.parse(line).Action);
        if (seen.includes("destroy")) resolve();
      });
    });
    const container = await docker.createContainer({
      Image: image, Cmd: ["true"], Labels: { "node-watched": "" },
    });
    await container.start();
    await container.wait();
    await container.remove();
    await done;
    stream.destroy();
    assert.deepEqual(seen, ["create", "start", "die", "destroy"]);
  },

  async images() {
    const context = zlib.gzipSync(archive("Dockerfile", "FROM busybox\nCMD echo from node\n"));
    const progress = await docker.buildImage(
      PassThrough.from([context]), { t: "node-built" },
    );
    const steps = await new Promise((resolve, reject) => {
      docker.modem.followProgress(progress, (error, all) => (error ? reject(error) : resolve(all)));
    });
    assert.ok(steps.some((step) => /Successfully tagged/.test(step.stream || "")));
    const built = docker.getImage("node-built");
    await built.tag({ repo: "node-built", tag: "two" });
    assert.ok((await built.history()).length >= 1);
    const saved = await built.get();
    assert.ok((await text(saved)).length > 1e6);
    assert.ok((await docker.listImages()).some((found) => found.RepoTags.includes("node-built:two")));
    await docker.getImage("node-built:two").remove();
    await built.remove();
    await assert.rejects(built.inspect(), { statusCode: 404 });
  },
};

(async () => {
  await checks[process.argv[2]]();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
