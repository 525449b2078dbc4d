import CSodium
import Crypto
import Foundation

/// How the user and id of an event become the key by which a resend is found: SipHash-2-4 with 128 bits of output (libsodium's), under a
/// secret of this bus's.
///
/// Nobody outside knows the secret, so nobody can make an id that is taken for another's; SHA-256 would do the same for six times
/// the time.
struct IDHash: Sendable {
    private let low: UInt64
    private let high: UInt64

    /// Under the key zero: for logs that nobody else writes to.
    init() { (low, high) = (0, 0) }

    /// `secret`: the bus's own key. Another secret makes other keys, and what the index holds of them worthless; `mark` tells.
    init(secret: String) {
        let code = HMAC<SHA256>.authenticationCode(for: Data("slipway bus event ids".utf8), using: SymmetricKey(data: Data(secret.utf8)))
        (low, high) = code.withUnsafeBytes {
            ($0.loadUnaligned(as: UInt64.self), $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        }
    }

    func key(_ user: String, _ id: String) -> RecentIDs.Key {
        var (user, id) = (user, id)
        return user.withUTF8 { user in id.withUTF8 { key(UnsafeRawBufferPointer(user), UnsafeRawBufferPointer($0)) } }
    }

    func key(_ user: UnsafeRawBufferPointer, _ id: UnsafeRawBufferPointer) -> RecentIDs.Key {
        withUnsafeTemporaryAllocation(byteCount: user.count + 1 + id.count, alignment: 1) { text in
            text.copyMemory(from: user)
            text[user.count] = 0
            UnsafeMutableRawBufferPointer(rebasing: text[(user.count + 1)...]).copyMemory(from: id)
            return hash(UnsafeRawBufferPointer(text))
        }
    }

    /// Says which secret keys in a file were made under, and does not give it away.
    var mark: UInt64 { withUnsafeBytes(of: UInt64(0x6D61_726B)) { hash($0).low } }

    private func hash(_ text: UnsafeRawBufferPointer) -> RecentIDs.Key {
        var result = (UInt64(0), UInt64(0))
        withUnsafeMutableBytes(of: &result) { result in
            withUnsafeBytes(of: (low, high)) { key in
                let bytes = { (buffer: UnsafeRawBufferPointer) in buffer.assumingMemoryBound(to: UInt8.self).baseAddress }
                guard let out = result.assumingMemoryBound(to: UInt8.self).baseAddress, let key = bytes(key) else { return }
                // Both have the lengths that it wants, and it cannot fail.
                _ = crypto_shorthash_siphashx24(out, bytes(text), UInt64(text.count), key)
            }
        }
        return RecentIDs.Key(high: result.0, low: result.1)
    }
}
