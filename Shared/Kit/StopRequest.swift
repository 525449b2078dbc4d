import Dispatch
import Foundation
import ServiceLifecycle

/// SIGTERM and SIGINT from the moment it is made: one that comes while a component is still being put together ends it in order once its
/// services run, where it would have ended the process at once.
///
/// As the last service of the group it is done with the first such signal, and a service that is done ends the group; the group itself
/// listens to none.
struct StopRequest: Service {
    private let signals: AsyncStream<Void>
    // Safe: a dispatch source may be used from any thread, and these are only held until the end.
    private nonisolated(unsafe) let sources: [any DispatchSourceSignal]

    init() {
        let (signals, heard) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
        self.signals = signals
        sources = [SIGTERM, SIGINT].map { number in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler { heard.yield() }
            source.activate()
            return source
        }
    }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            for await _ in signals { return }
        }
        withExtendedLifetime(sources) {}
    }
}
