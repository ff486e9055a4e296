"""Shapes of other languages than Python: Node.js, Ruby, a page that is bundled for the browser."""

from __future__ import annotations

from tests.support.skaffold_shapes.shape import Edit, Shape, deployment, skaffold

LANGUAGES = (
    Shape(
        name="nodejs",
        files={
            "skaffold.yaml": skaffold("""\
build:
  artifacts:
    - image: node-example
      context: backend
      sync:
        manual:
          - {src: 'src/**/*.js', dest: .}
manifests:
  rawYaml: [backend/k8s/deployment.yaml]
"""),
            "backend/package.json": '{"name": "backend", "main": "src/index.js"}\n',
            "backend/src/index.js": """\
const http = require("http");
const VERSION = "v0";
http.createServer((_, response) => response.end(VERSION)).listen(8080);
""",
            "backend/Dockerfile": """\
FROM node-base:dev
WORKDIR /app
ENV NODE_ENV=development
CMD ["node", "--watch", "src/index.js"]
COPY package.json .
COPY src src
""",
            "backend/k8s/deployment.yaml": deployment("web", "node-example"),
        },
        edits=(Edit(file="backend/src/index.js"),),
        needs=("node-base:dev",),
    ),
    Shape(
        name="ruby",
        files={
            "skaffold.yaml": skaffold("""\
build:
  artifacts:
    - image: ruby-example
      context: backend
      sync:
        infer: ["**/*.rb"]
manifests:
  rawYaml: [backend/k8s/deployment.yaml]
"""),
            "backend/app.rb": """\
require "webrick"
server = WEBrick::HTTPServer.new(Port: 8080, AccessLog: [])
server.mount_proc("/") { |_, response| load "#{__dir__}/answer.rb"; response.body = answer }
server.start
""",
            "backend/answer.rb": 'def answer = "v0"\n',
            "backend/Dockerfile": """\
FROM ruby-base:dev
WORKDIR /app
CMD ["ruby", "app.rb"]
COPY *.rb ./
""",
            "backend/k8s/deployment.yaml": deployment("web", "ruby-example"),
        },
        edits=(Edit(file="backend/answer.rb"),),
        needs=("ruby-base:dev",),
    ),
    Shape(
        name="react",
        files={
            "skaffold.yaml": skaffold("""\
build:
  artifacts:
    - image: react-page
      context: app
      sync:
        manual:
          - {src: 'src/**/*', dest: .}
manifests:
  rawYaml: [k8s/deployment.yaml]
"""),
            "app/package.json": (
                '{"name": "page", "dependencies": '
                '{"esbuild": "0.25.0", "react": "18.3.1", "react-dom": "18.3.1"}}\n'
            ),
            "app/src/page.jsx": """\
import React from "react";
import { createRoot } from "react-dom/client";

createRoot(document.body).render(<h1>version v0</h1>);
""",
            "app/public/index.html": '<body><script src="/page.js"></script></body>\n',
            "app/Dockerfile": """\
FROM node-base:dev
WORKDIR /app
COPY node_modules node_modules
COPY package.json .
COPY public public
COPY src src
CMD ["node_modules/.bin/esbuild", "src/page.jsx", "--bundle", "--outfile=public/page.js", \
"--servedir=public", "--serve=0.0.0.0:8080", "--watch=forever"]
""",
            "k8s/deployment.yaml": deployment("web", "react-page"),
        },
        first={"web": "/page.js"},
        edits=(Edit(file="app/src/page.jsx", path="/page.js", served="version v1"),),
        needs=("node-base:dev", "npm"),
        prepare=("npm", "install", "--prefix", "app", "--no-audit", "--no-fund"),
    ),
)
