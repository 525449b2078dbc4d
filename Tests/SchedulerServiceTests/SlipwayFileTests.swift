import Contracts
import Foundation
import Testing

@testable import SchedulerService

func read(_ yaml: String) throws -> Pipeline { try Pipeline.read(.slipway(Data(yaml.utf8)), app: World.app) }
/// The sentence with which a file is refused.
func refusal(_ data: Data) -> String {
    do {
        _ = try Pipeline.read(.slipway(data), app: World.app)
        return "accepted"
    } catch let problem as Problem {
        return problem.description
    } catch {
        return "\(error)"
    }
}
func refusal(_ yaml: String) -> String { refusal(Data(yaml.utf8)) }

@Suite("slipway.yml") struct SlipwayFileTests {
    @Test("is read whole, with every default filled in") func whole() throws {
        let pipeline = try read(
            """
            app: shop
            test: [make test, "./lint"]
            build: {run: make dist, artifact: ./dist/}
            services:
              web:
                run: ./server --port $PORT
                ports: {http: 8080, admin: 9090}
                instances: 2
                needs: [db]
                health: {http: /healthz, interval: 500ms, timeout: 1s, healthy: 2, grace: 1m}
                stop: {signal: SIGINT, timeout: 1.5s}
                limits: {memory: 256M, cpu: 0.5, files: 4096}
                env: {LOG: info, DEBUG: yes, EMPTY: ""}
                rollout: {strategy: rolling, max_unavailable: 0}
              db: {run: ./db, ports: {sql: 5432}}
              worker: {run: ./work}
            routes: [{host: shop.example.org, service: web, tls: none}]
            environments:
              dev: {from: "branch:*"}
              production: {from: dev, runtime: process, tag: "v{number}"}
            """)
        #expect(pipeline.test == ["make test", "./lint"])
        #expect(pipeline.build == ["make dist"])
        #expect(pipeline.artifact == "dist")
        let web = pipeline.config.services[0]
        #expect(web.ports.map(\.name.text) == ["http", "admin"])
        #expect(web.instances == 2)
        #expect(web.health == HealthSpec(check: .http(path: "/healthz"), interval: 0.5, timeout: 1, healthy: 2, grace: 60))
        #expect(web.stop == StopSpec(signal: "INT", timeout: 1.5))
        #expect(web.limits == LimitSpec(memory: 256 << 20, cpu: 0.5, files: 4096))
        #expect(web.environment == ["LOG": "info", "DEBUG": "yes", "EMPTY": ""])
        #expect(pipeline.config.services[1].health.check == .tcp)
        #expect(pipeline.config.services[2].health.check == .running)
        #expect(pipeline.config.services[2].stop == StopSpec())
        #expect(pipeline.config.routes == [RouteSpec(host: "shop.example.org", service: web.name)])
        #expect(pipeline.config.environments.map(\.name.text) == ["dev", "production"])
        #expect(pipeline.config.environments[1].from == .environment(try EnvName("dev")))
    }

    @Test("may have a byte order mark, CRLF, comments, quotes, block text and aliases") func forms() throws {
        let text =
            "\u{FEFF}# ours\r\nservices:\r\n  web:\r\n    run: |\r\n      cd x\r\n      exec ./server\r\n    env: &e {A: \"1\"}\r\n  worker: {run: ./w, env: *e}\r\n"
        let pipeline = try read(text)
        #expect(pipeline.config.services[0].run == "cd x\nexec ./server\n")
        #expect(pipeline.config.services[1].environment == ["A": "1"])
        #expect(pipeline.config.environments == [EnvironmentSpec(name: try EnvName("production"), from: .defaultBranch)])
    }

    @Test(
        "refuses what is wrong with the place and the mend",
        arguments: [
            // Y3
            ("servcies: {}", "slipway.yml line 1, column 1: unknown key 'servcies' (did you mean 'services'?)"),
            (
                "services:\n  web:\n    run: x\n    port: {}",
                "slipway.yml line 4, column 5: unknown key 'port' in 'services.web' (did you mean 'ports'?)"
            ),
            ("services:\n\tweb: {run: x}", "slipway.yml line 2, column 1: tabs cannot indent in YAML (use spaces)"),
            ("services: {web: {run: x}}\nservices: {}", "slipway.yml line 1, column 1: key 'services' appears twice (remove one)"),
            ("services:\n  web: {run: x, run: y}", "slipway.yml line 2, column 9: key 'run' appears twice (remove one)"),
            // Y4
            (
                "services: !!python/object {}",
                "slipway.yml line 1, column 11: tags are not supported (line 1) (remove what begins with '!', or put it in quotes)"
            ),
            (
                "app: !!binary c2hvcA==",
                "slipway.yml line 1, column 6: tags are not supported (line 1) (remove what begins with '!', or put it in quotes)"
            ),
            ("x: &a {b: c}\nservices:\n  <<: *a", "slipway.yml line 3, column 3: merge keys ('<<') are not supported (write the keys out)"),
            // Types
            ("services: [web]", "slipway.yml line 1, column 11: 'services': expected a map, found a list (write 'key: value' lines)"),
            ("services: {web: {run: [a]}}", "slipway.yml line 1, column 23: services.web.run: expected text, found a list"),
            (
                "services: {web: {}}",
                "slipway.yml line 1, column 17: services.web: 'run' is missing (the command line that starts it, such as 'run: ./server --port $PORT')"
            ),
            ("test: {a: b}\nservices: {web: {run: x}}", "slipway.yml line 1, column 7: test: expected text, found a map"),
            (
                "app: other\nservices: {web: {run: x}}",
                "slipway.yml line 1, column 1: app: 'other', but this is the repository of 'shop' (write 'app: shop', or remove the line)"
            ),
            ("services: {}", "slipway.yml line 1, column 11: services: names none"),
            (
                "build: {}",
                "slipway.yml line 1, column 1: 'services' is missing: there is nothing to run (add for example: services: {web: {run: ./server, ports: {http: 8080}}})"
            ),
            (
                "services: {We_b: {run: x}}",
                "slipway.yml line 1, column 12: service name 'We_b': only a-z, 0-9 and '-' (found 'W' at 1) (use 1 to 30 characters: a-z, 0-9 and '-')"
            ),
            // Y7
            (
                "services: {web: {run: x, needs: [db]}, db: {run: y, needs: [web]}}",
                "slipway.yml line 1, column 12: services need each other in a circle: web → db → web (remove one of these needs)"
            ),
            (
                "services: {web: {run: x, needs: [web]}}",
                "slipway.yml line 1, column 12: services need each other in a circle: web → web (remove one of these needs)"
            ),
            (
                "services: {web: {run: x, needs: [bd]}, db: {run: y}}",
                "slipway.yml line 1, column 12: services.web.needs: there is no service 'bd' (did you mean 'db'?)"
            ),
            (
                "services: {web: {run: x, needs: [db]}, db: {run: y, instances: 0}}",
                "slipway.yml line 1, column 12: services.web.needs: 'db' has 0 instances, so it is never ready (give 'db' an instance)"
            ),
            // Y8
            (
                "services: {web: {run: x, ports: {http: 0}}}",
                "slipway.yml line 1, column 40: services.web.ports.http: whole number 1–65535, found '0'"
            ),
            (
                "services: {web: {run: x, ports: {http: 70000}}}",
                "slipway.yml line 1, column 40: services.web.ports.http: whole number 1–65535, found '70000'"
            ),
            (
                "services:\n  web:\n    run: x\n    ports:\n      a: 80\n      b: 80",
                "slipway.yml line 6, column 7: services.web.ports: 'b' and 'a' (line 5, column 7) have the same port 80 (give each a number of its own)"
            ),
            // Y12
            (
                "services: {web: {run: x, ports: {http: 80}, health: {http: //169.254.169.254/}}}",
                "slipway.yml line 1, column 54: services.web.health.http: '//169.254.169.254/' is not a path on the instance itself (for example /healthz)"
            ),
            (
                "services: {web: {run: x, health: {http: /h}}}",
                "slipway.yml line 1, column 34: services.web.health: the service has no port to check (add 'ports: {http: 8080}')"
            ),
            (
                "services: {web: {run: x, health: {healthy: 10, interval: 5s}}}",
                "slipway.yml line 1, column 34: services.web.health: 10 checks at this interval take 50s, longer than the grace of 30s: it could never become ready (lengthen 'grace', or shorten 'interval')"
            ),
            // Others
            (
                "build: {artifact: ../x}\nservices: {web: {run: x}}",
                "slipway.yml line 1, column 9: build.artifact: '../x' leaves the checkout (a path inside the repository, such as dist)"
            ),
            (
                "build: {artifact: /etc}\nservices: {web: {run: x}}",
                "slipway.yml line 1, column 9: build.artifact: '/etc' begins with '/' (a path inside the repository, such as dist)"
            ),
            (
                "services: {web: {run: x, stop: {signal: TREM}}}",
                "slipway.yml line 1, column 33: services.web.stop.signal: unknown signal 'TREM' (did you mean 'TERM'?)"
            ),
            (
                "services: {web: {run: x}}\nroutes: [{host: a.example.org, service: web}]",
                "slipway.yml line 2, column 32: routes[0]: service 'web' has no port (add 'ports: {http: 8080}' to it)"
            ),
            (
                "services: {web: {run: x, ports: {http: 80}}}\nroutes: [{host: bank.localhost, service: web}]",
                "slipway.yml line 2, column 11: routes[0]: host 'bank.localhost' is not yours to give: names under 'localhost' are given by Slipway (APP.localhost is there by itself; remove the route)"
            ),
            (
                "services: {web: {run: x}}\nenvironments: {production: {from: stagin}, staging: {from: 'branch:main'}}",
                "slipway.yml line 2, column 29: environments.production.from: there is no environment 'stagin' (did you mean 'staging'?)"
            ),
            (
                "services: {web: {run: x}}\nenvironments: {a: {from: b}, b: {from: a}}",
                "slipway.yml line 2, column 16: environments feed each other in a circle: a → b → a (feed one of them from a branch)"
            ),
            (
                "services: {web: {run: x}}\nenvironments: {a: {}}",
                "slipway.yml line 2, column 16: environments.a: 'from' is missing ('branch:main', 'branch:*', or the name of another environment)"
            ),
        ])
    func wrong(yaml: String, expected: String) {
        #expect(refusal(yaml) == expected)
    }

    @Test(
        "says plainly what this version does not do, and what to do instead",
        arguments: [
            ("schedules: {}", "schedules"), ("notify: []", "notify"), ("build: {cache: [.build]}", "build.cache"),
            ("build: {image: {}}", "build.image"),
            ("services: {web: {image: x}}", "services.web.image"), ("services: {web: {run: x, volumes: {d: /d}}}", "services.web.volumes"),
            ("services: {web: {run: x, deploy: ./m}}", "services.web.deploy"),
            ("services: {web: {run: x, rollout: {strategy: canary}}}", "strategy 'canary'"),
            ("services: {web: {run: x, rollout: {max_surge: 1}}}", "services.web.rollout.max_surge"),
            ("services: {web: {run: x, runtime: docker}}", "runtime 'docker'"),
            ("services: {web: {run: x, health: {exec: y}}}", "services.web.health.exec"),
            ("services: {web: {run: x, ports: {http: 80}}}\nroutes: [{host: a.example.org, service: web, tls: auto}]", "tls: auto"),
            ("services: {web: {run: x}}\nenvironments: {p: {from: 'branch:main', approval: 1}}", "environments.p.approval"),
            ("services: {web: {run: x}}\nenvironments: {p: {from: 'branch:main', keep: 5}}", "environments.p.keep"),
            ("services: {web: {run: x}}\nenvironments: {p: {from: 'branch:main', checks: [x]}}", "environments.p.checks"),
            ("services: {web: {run: x}}\nenvironments: {p: {from: 'branch:main', hosts: {label: x}}}", "environments.p.hosts"),
            ("services: {web: {run: x}}\nenvironments: {p: {from: 'branch:main', runtime: swarm}}", "runtime 'swarm'"),
            ("services: {web: {run: x}}\nenvironments: {p: {from: 'branch:main', tag: 'r{number}'}}", "a tag other than 'v{number}'"),
        ])
    func unsupported(yaml: String, key: String) throws {
        do {
            _ = try read(yaml)
            Issue.record("accepted")
        } catch let problem as Problem {
            #expect(problem.code == .unsupported)
            #expect(
                problem.message.contains(key) && problem.message.contains("not supported by this version of Slipway"), "\(problem.message)")
            #expect(problem.hint != nil)
        }
    }

    @Test("takes numbers, durations and sizes in one form each") func values() {
        func count(_ text: String) -> String { refusal("services: {web: {run: x, instances: \(text)}}") }
        for good in ["0", "3", "1000"] { #expect(count(good) == "accepted") }
        for bad in ["1e999", ".nan", "-0", "-1", "9223372036854775808", "\"3\"", "3.0", "1001", "03", "0x3", "~", "true"] {
            #expect(count(bad).contains("services.web.instances: whole number 0–1000"), "\(bad): \(count(bad))")
        }
        #expect(refusal("services: {web: {run: x, ports: {http: 80}, instances: 129}}").contains("whole number 0–128"))
        func grace(_ text: String) -> String { refusal("services: {web: {run: x, health: {interval: 1ms, grace: \(text)}}}") }
        for good in ["500ms", "2s", "1m", "1h", "1.5s", "\"2s\""] { #expect(grace(good) == "accepted", "\(good)") }
        for bad in ["-1s", "1y", "0", "1e9h", "' 5 s'", "0s", "5", "s", "1.s", "2h", "99999999999999999999s", "5 s"] {
            #expect(grace(bad).contains("is not a duration") && grace(bad).contains("ms, s, m or h"), "\(bad): \(grace(bad))")
        }
        func memory(_ text: String) -> String { refusal("services: {web: {run: x, limits: {memory: \(text)}}}") }
        for good in ["256M", "1G", "4096K"] { #expect(memory(good) == "accepted", "\(good)") }
        for bad in ["256", "1T", "1.5G", "-1M", "1K", "0M", "256m", "99999999999G"] {
            #expect(memory(bad).contains("is not a size"), "\(bad): \(memory(bad))")
        }
    }

    @Test("takes variables whose names and values can be ones") func variables() {
        func env(_ entry: String) -> String { refusal("services: {web: {run: x, env: {\(entry)}}}") }
        #expect(env("LD_PRELOAD: x, _a1: \"two\\nlines\"") == "accepted")
        for bad in [
            "'A=B': x", "1X: x", "'': x", "A: [x]", "A: ", "PORT: 1", "PORT_HTTP: 1", "SLIPWAY_APP: x", "PATH: \"a\\nb\"", "A: \"\\0\"",
        ] {
            #expect(env(bad) != "accepted", "\(bad)")
        }
        #expect(
            env("A: " + String(repeating: "x", count: 40_000))
                == "slipway.yml line 1, column 32: services.web.env: 'A' is longer than 32768 bytes")
        #expect(env((0..<300).map { "A\($0): x" }.joined(separator: ", ")).contains("more than 200 variables"))
    }
}
