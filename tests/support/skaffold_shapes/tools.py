"""Shapes whose images other programs build: ko and jib, for real. Their base images are in the
tests' registry, as both pull them from one."""

from __future__ import annotations

from tests.support.skaffold_shapes.shape import Edit, Shape, deployment, skaffold

REGISTRY = "localhost:5005"


def _push(image: str) -> tuple[str, ...]:
    there = f"{REGISTRY}/{image}"
    return ("sh", "-c", f"docker tag {image} {there} && docker push -q {there}")


TOOLS = (
    Shape(
        name="ko",
        files={
            "skaffold.yaml": skaffold(f"""\
build:
  artifacts:
    - image: ko-made
      ko:
        fromImage: {REGISTRY}/busybox-base:dev
        flags: [-trimpath]
        ldflags: [-s, -w]
        labels: {{made-by: ko}}
        dependencies:
          paths: ["**/*.go", go.mod]
manifests:
  rawYaml: [k8s.yaml]
"""),
            "go.mod": "module example.test/web\n\ngo 1.24\n",
            "main.go": """\
package main

import (
	"fmt"
	"net/http"
)

const version = "v0"

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, version) })
	panic(http.ListenAndServe(":8080", nil))
}
""",
            "k8s.yaml": deployment("web", "ko-made"),
        },
        edits=(Edit(file="main.go"),),
        needs=("ko", "go", "busybox-base:dev"),
        prepare=_push("busybox-base:dev"),
    ),
    Shape(
        name="jib-maven",
        files={
            "skaffold.yaml": skaffold(f"""\
build:
  artifacts:
    - image: jib-made
      jib:
        fromImage: {REGISTRY}/java-base:dev
        args: [--batch-mode]
manifests:
  rawYaml: [k8s.yaml]
"""),
            "pom.xml": """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>test.example</groupId>
  <artifactId>web</artifactId>
  <version>1</version>
  <properties>
    <maven.compiler.source>17</maven.compiler.source>
    <maven.compiler.target>17</maven.compiler.target>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
  </properties>
  <build>
    <plugins>
      <plugin>
        <groupId>com.google.cloud.tools</groupId>
        <artifactId>jib-maven-plugin</artifactId>
        <version>3.4.6</version>
      </plugin>
    </plugins>
  </build>
</project>
""",
            "src/main/java/Web.java": """\
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

public class Web {
    static final String VERSION = "v0";

    public static void main(String[] words) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress(8080), 0);
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(200, VERSION.length());
            exchange.getResponseBody().write(VERSION.getBytes());
            exchange.close();
        });
        server.start();
    }
}
""",
            ".dockerignore": "target\n",
            "k8s.yaml": deployment("web", "jib-made"),
        },
        edits=(Edit(file="src/main/java/Web.java"),),
        needs=("mvn", "java-base:dev"),
        prepare=_push("java-base:dev"),
    ),
)
