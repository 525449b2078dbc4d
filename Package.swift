// swift-tools-version: 6.2
import PackageDescription

/// What every target of our own is compiled with. Warnings are errors here and only here: dependencies keep their own.
let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .treatAllWarnings(as: .error),
    .treatWarning("DeprecatedDeclaration", as: .warning),
]

// Products of other packages, named once.
let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let asyncHTTPClient = Target.Dependency.product(name: "AsyncHTTPClient", package: "async-http-client")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let grdb = Target.Dependency.product(name: "GRDB", package: "GRDB.swift")
let httpTypes = Target.Dependency.product(name: "HTTPTypes", package: "swift-http-types")
let heap = Target.Dependency.product(name: "HeapModule", package: "swift-collections")
let hummingbird = Target.Dependency.product(name: "Hummingbird", package: "hummingbird")
let hummingbirdCore = Target.Dependency.product(name: "HummingbirdCore", package: "hummingbird")
let lifecycle = Target.Dependency.product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioHTTP1 = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let nioExtras = Target.Dependency.product(name: "NIOExtras", package: "swift-nio-extras")
let subprocess = Target.Dependency.product(name: "Subprocess", package: "swift-subprocess")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")

/// What every component may import. A component never imports a component: this list is what enforces it.
let kit: [Target.Dependency] = ["Contracts", "BusClient", "Storage", "Kit", "HTTPKit", grdb, hummingbird, logging, lifecycle, nioCore]

/// The library and the executable of one component; both live in `Services/<room>`, where `apart` is somebody else's.
func component(_ room: String, _ extra: [Target.Dependency] = [], apart: [String] = []) -> [Target] {
    [
        .target(
            name: "\(room)Service", dependencies: kit + extra, path: "Services/\(room)",
            exclude: ["README.md", "Main"] + apart, swiftSettings: settings),
        .executableTarget(
            name: "slipway-\(room.lowercased())",
            dependencies: [.target(name: "\(room)Service"), "Kit", argumentParser],
            path: "Services/\(room)/Main", swiftSettings: settings),
    ]
}

/// A target in `Shared/`.
func shared(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, path: "Shared/\(name)", swiftSettings: settings)
}

/// The tests of one module, in `Tests/<module>Tests`.
func tests(_ module: String, _ extra: [Target.Dependency] = []) -> Target {
    .testTarget(
        name: "\(module)Tests", dependencies: [.target(name: module)] + extra, path: "Tests/\(module)Tests",
        swiftSettings: settings)
}

let package = Package(
    name: "slipway",
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", exact: "1.6.0"),
        .package(url: "https://github.com/apple/swift-crypto", exact: "4.5.2"),
        .package(url: "https://github.com/apple/swift-http-types", exact: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", exact: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-extras", exact: "1.35.2"),
        .package(url: "https://github.com/groue/GRDB.swift", exact: "7.10.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", exact: "2.28.1"),
        .package(url: "https://github.com/jpsim/Yams", exact: "6.2.2"),
        .package(url: "https://github.com/swift-server/async-http-client", exact: "1.37.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", exact: "2.13.0"),
        .package(url: "https://github.com/swiftlang/swift-subprocess", exact: "1.0.2"),
    ],
    targets: [
        // Shared: what the components have in common, and nothing else.
        .systemLibrary(name: "CZeroMQ", path: "Shared/CZeroMQ"),
        .systemLibrary(name: "CSodium", path: "Shared/CSodium"),
        .systemLibrary(name: "CZlib", path: "Shared/CZlib"),
        .target(name: "CSys", path: "Shared/CSys"),
        shared("Contracts", []),
        shared("Wire", ["Contracts", "CSys"]),
        shared("BusClient", ["Contracts", "Wire", "CZeroMQ", "CSys", logging]),
        shared("Storage", ["Contracts", crypto, grdb]),
        shared("Kit", ["Contracts", "BusClient", "Storage", "CZeroMQ", argumentParser, crypto, grdb, lifecycle, logging, yams]),
        shared(
            "HTTPKit",
            [
                "Contracts", "Kit", asyncHTTPClient, crypto, hummingbird, hummingbirdCore, httpTypes, nioCore, nioPosix, nioHTTP1,
                nioExtras,
            ]),
        shared("Story", ["Contracts"]),
    ]
        + component("Bus", ["Wire", "CZeroMQ", "CSodium", "CSys", crypto, heap])
        + component("API", ["Story", crypto])
        + component("Git", ["Story", "CZlib", subprocess, crypto])
        + component("Registry", [crypto, httpTypes, nioPosix])
        + component("Scheduler", [yams])
        + component("Deployer")
        + component("Discovery", [nioPosix])
        + component("Supervisor", ["CSys", asyncHTTPClient, crypto], apart: ["Daemon", "DaemonMain"])
        + [
            // supervisord's face: without Foundation and all that the components share, because it stands in for a small program.
            .target(
                name: "SupervisorDaemon", dependencies: ["CSys"], path: "Services/Supervisor/Daemon", swiftSettings: settings),
            .executableTarget(
                name: "slipway-supervisord", dependencies: ["SupervisorDaemon"], path: "Services/Supervisor/DaemonMain",
                swiftSettings: settings),
            .executableTarget(
                name: "slipway",
                dependencies: ["Contracts", "Story", "Kit", "CSys", argumentParser, asyncHTTPClient],
                path: "Services/CLI", exclude: ["README.md"], swiftSettings: settings),
            .executableTarget(
                name: "slipway-bus-plain", dependencies: ["BusService", "Kit", argumentParser], path: "Tests/Benchmarks/PlainBus",
                swiftSettings: settings),
            .target(
                name: "TestKit", dependencies: ["Contracts", "Kit", asyncHTTPClient], path: "Tests/TestKit", swiftSettings: settings),
            tests("Contracts"),
            tests("Wire", ["Contracts", "CSys"]),
            tests("BusClient", ["TestKit"]),
            tests("Storage", ["TestKit"]),
            tests("Kit", ["TestKit"]),
            tests("HTTPKit", ["TestKit"]),
            tests("Story", ["Contracts"]),
            tests("BusService", ["TestKit", "BusClient", "Wire", "CSys"]),
            tests("APIService", ["TestKit"]),
            tests("GitService", ["TestKit"]),
            tests("RegistryService", ["TestKit"]),
            tests("SchedulerService", ["TestKit"]),
            tests("DeployerService", ["TestKit"]),
            tests("DiscoveryService", ["TestKit"]),
            tests("SupervisorService", ["TestKit"]),
            tests("SupervisorDaemon", ["TestKit"]),
            .testTarget(name: "PlatformTests", dependencies: ["TestKit", "Contracts"], path: "Tests/Platform", swiftSettings: settings),
        ],
    swiftLanguageModes: [.v6]
)
