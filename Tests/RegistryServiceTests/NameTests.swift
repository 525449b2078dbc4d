import Contracts
import Testing

@testable import RegistryService

@Suite("repository names, references and paths") struct NameTests {
    @Test(
        "the specification's names are taken",
        arguments: ["a", "0", "a/b", "a.b", "a_b", "a__b", "a-b", "a---b", "library/ubuntu", "a/blobs", "x/manifests/tags", "x"])
    func good(_ text: String) throws { #expect(try RepositoryName(text).text == text) }

    @Test(
        "other names are refused with NAME_INVALID",
        arguments: [
            "", "A", "TEAM/app", "a/", "/a", "a//b", ".a", "a.", "a..b", "a___b", "a-_b", "a._b", "-a", "a-", "_catalog", "..", "a/../b",
            "a b",
            "a\\b", "a\0", "é", "a:b", String(repeating: "a", count: 256),
        ])
    func bad(_ text: String) {
        #expect { try RepositoryName(text) } throws: { ($0 as? OCIError)?.code == .nameInvalid }
    }

    @Test("a tag has at most 128 characters and its own alphabet")
    func tags() {
        for good in ["latest", "v1.0", "_x", "A-b", String(repeating: "a", count: 128)] { #expect(TagName(good) != nil) }
        for bad in ["", ".x", "-x", "a b", "a/b", "a:b", "é", String(repeating: "a", count: 129)] { #expect(TagName(bad) == nil) }
    }

    @Test(
        "a wrong digest is DIGEST_INVALID",
        arguments: [
            "sha256:" + String(repeating: "a", count: 63), "sha256:" + String(repeating: "a", count: 65),
            "sha256:" + String(repeating: "A", count: 64),
            "sha256:zz", "md5:" + String(repeating: "a", count: 32), "sha256+b64u:xx", "sha256:../../../../etc/passwd",
            "sha256:" + String(repeating: "1", count: 1 << 20),
        ])
    func digests(_ text: String) {
        #expect { try Reference.digest(text) } throws: { ($0 as? OCIError)?.code == .digestInvalid }
    }

    static let digest = "sha256:" + String(repeating: "a", count: 64)

    @Test("paths are read from the right")
    func paths() throws {
        let digest = try Digest(Self.digest)
        let table: [(String, RegistryPath)] = [
            ("/v2", .base), ("/v2/", .base), ("/v2/_catalog", .catalog),
            ("/v2/a/b/blobs/\(digest)", .blob(try RepositoryName("a/b"), digest)),
            ("/v2/a/b/blobs/sha256%3A\(digest.hex)", .blob(try RepositoryName("a/b"), digest)),
            ("/v2/a/blobs/blobs/\(digest)", .blob(try RepositoryName("a/blobs"), digest)),
            ("/v2/a/blobs/uploads/", .uploads(try RepositoryName("a"))), ("/v2/a/blobs/uploads", .uploads(try RepositoryName("a"))),
            ("/v2/a/blobs/blobs/uploads/", .uploads(try RepositoryName("a/blobs"))),
            ("/v2/a/manifests/v1", .manifest(try RepositoryName("a"), try Reference("v1"))),
            ("/v2/a/manifests/manifests/v1", .manifest(try RepositoryName("a/manifests"), try Reference("v1"))),
            ("/v2/a/tags/tags/list", .tags(try RepositoryName("a/tags"))),
            ("/v2/a/referrers/\(digest)", .referrers(try RepositoryName("a"), digest)),
        ]
        for (path, expected) in table { #expect(try RegistryPath(path) == expected, "\(path)") }
        let id = UploadID.fresh()
        #expect(try RegistryPath("/v2/a/blobs/uploads/\(id)") == .upload(try RepositoryName("a"), id))
    }

    @Test(
        "paths that lead nowhere are refused with a code of the list",
        arguments: [
            ("/v2/a//b/tags/list", OCIError.Code.nameInvalid), ("/v2/a/%2e%2e%2fb/tags/list", .nameInvalid),
            ("/v2/a%2Fb/tags/list", .nameInvalid),
            ("/v2/../tags/list", .nameInvalid), ("/v2/tags/list", .nameInvalid), ("/v2/a/tags/list/", .nameUnknown),
            ("/v2/a", .nameUnknown),
            ("/v2/a/manifests/%00", .manifestInvalid), ("/v2/a/manifests/", .manifestInvalid), ("/v2/a/blobs/x", .digestInvalid),
            ("/v2/%zz/tags/list", .nameInvalid),
            ("/v2/_catalog/tags/list", .nameInvalid), ("/v2/a/blobs/uploads/..", .uploadUnknown), ("/v1/a", .nameUnknown),
        ])
    func refused(_ path: String, _ code: OCIError.Code) {
        #expect { try RegistryPath(path) } throws: { ($0 as? OCIError)?.code == code }
    }

    @Test("upload ids are 32 hexadecimal digits and never the same")
    func uploadIDs() {
        #expect(Set((0..<100).map { _ in UploadID.fresh().text }).count == 100)
        #expect(UploadID(UploadID.fresh().text) != nil)
        #expect(UploadID("..") == nil)
        #expect(UploadID(String(repeating: "A", count: 32)) == nil)
    }
}

@Suite("rights") struct AccessTests {
    @Test("pull needs viewer, push developer, delete operator")
    func roles() throws {
        let name = try RepositoryName("a/b")
        for (role, allowed) in [(Role.viewer, 1), (.developer, 2), (.operator, 3), (.admin, 3)] {
            let principal = Principal(name: "x", role: role)
            let count = [Access.Action.pull, .push, .delete].filter { Access.allows(principal, $0, name) }.count
            #expect(count == allowed, "\(role)")
        }
    }

    @Test("a token of an app reaches that app's repositories only")
    func scopes() throws {
        let principal = Principal(name: "x", role: .admin, app: try AppName("shop"))
        for good in ["shop", "shop/web", "shop/a/b", "bundles/shop", "bundles/shop/web"] {
            #expect(Access.allows(principal, .push, try RepositoryName(good)), "\(good)")
        }
        for bad in ["shopping", "bundles", "bundles/shopping", "other", "other/shop", "bundles/other"] {
            #expect(!Access.allows(principal, .pull, try RepositoryName(bad)), "\(bad)")
        }
    }

    @Test("a component reads and writes bundles, and nothing else")
    func components() throws {
        let principal = Principal(name: "component:supervisor", role: .admin)
        #expect(Access.allows(principal, .pull, try RepositoryName("bundles/shop")))
        #expect(Access.allows(principal, .push, try RepositoryName("bundles/shop")))
        #expect(!Access.allows(principal, .delete, try RepositoryName("bundles/shop")))
        #expect(!Access.allows(principal, .pull, try RepositoryName("shop")))
    }
}
