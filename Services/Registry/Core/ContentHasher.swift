import Contracts
import Crypto

/// The algorithms whose digests are taken.
enum DigestAlgorithm: String, Sendable, CaseIterable {
    case sha256, sha512
}

/// A running digest, and how many bytes it covers.
struct ContentHasher: Sendable {
    private enum State: Sendable { case sha256(SHA256), sha512(SHA512) }
    private var state: State
    private(set) var count: Int64 = 0

    init(_ algorithm: DigestAlgorithm) {
        switch algorithm {
        case .sha256: state = .sha256(SHA256())
        case .sha512: state = .sha512(SHA512())
        }
    }

    var algorithm: DigestAlgorithm {
        switch state {
        case .sha256: .sha256
        case .sha512: .sha512
        }
    }

    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        switch state {
        case .sha256(var hash):
            hash.update(bufferPointer: bytes)
            state = .sha256(hash)
        case .sha512(var hash):
            hash.update(bufferPointer: bytes)
            state = .sha512(hash)
        }
        count += Int64(bytes.count)
    }

    /// `sha256:…` of what came so far.
    var digestText: String {
        func hex(_ bytes: some Sequence<UInt8>) -> String {
            let digits = Array("0123456789abcdef".utf8)
            var text: [UInt8] = []
            for byte in bytes {
                text.append(digits[Int(byte >> 4)])
                text.append(digits[Int(byte & 15)])
            }
            return String(decoding: text, as: UTF8.self)
        }
        switch state {
        case .sha256(let hash): return "sha256:" + hex(hash.finalize())
        case .sha512(let hash): return "sha512:" + hex(hash.finalize())
        }
    }

    /// Whether these bytes have that digest.
    static func matches(_ bytes: [UInt8], _ digest: Contracts.Digest) -> Bool { digestText(bytes, digest.known) == digest.text }
    static func digestText(_ bytes: [UInt8], _ algorithm: DigestAlgorithm) -> String {
        var hasher = ContentHasher(algorithm)
        bytes.withUnsafeBytes { hasher.update($0) }
        return hasher.digestText
    }
}

extension Contracts.Digest {
    /// The algorithm. The grammar of `Digest` knows only these two.
    var known: DigestAlgorithm { DigestAlgorithm(rawValue: algorithm) ?? .sha256 }
}
