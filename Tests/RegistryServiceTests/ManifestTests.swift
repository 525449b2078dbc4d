import Contracts
import Foundation
import Testing

@testable import RegistryService

@Suite("manifests") struct ManifestTests {
    static let digest = "sha256:" + String(repeating: "a", count: 64)
    static let part = #"{"mediaType":"application/x","digest":"\#(digest)","size":3}"#

    func parse(_ text: String, as type: String? = MediaType.ociManifest) throws -> Manifest {
        try Manifest(Array(text.utf8), contentType: type)
    }

    @Test("an image tells its parts, subject, artifact type and annotations")
    func image() throws {
        let manifest = try parse(
            #"{"schemaVersion":2,"config":\#(Self.part),"layers":[\#(Self.part)],"subject":\#(Self.part),"annotations":{"a":"b"},"future":[1]}"#
        )
        #expect(manifest.parts.map(\.kind) == [.config, .layer, .subject])
        #expect(manifest.parts.map(\.required) == [true, true, false])
        #expect(manifest.subject?.text == Self.digest)
        #expect(manifest.artifactType == "application/x")
        #expect(manifest.annotations == ["a": "b"])
    }

    @Test("what the specification allows is fine")
    func allowed() throws {
        _ = try parse(#"{"schemaVersion":2,"config":\#(Self.part),"layers":[]}"#)
        _ = try parse(#"{"schemaVersion":2,"manifests":[]}"#, as: MediaType.ociIndex + "; charset=utf-8")
        let data = Data("abc".utf8)
        let part = #"{"mediaType":"x","digest":"\#(digestOf(data))","size":3,"data":"\#(data.base64EncodedString())"}"#
        _ = try parse(#"{"schemaVersion":2,"config":\#(part),"layers":[]}"#)
        let index = try parse(#"{"schemaVersion":2,"mediaType":"\#(MediaType.ociIndex)","manifests":[]}"#, as: nil)
        #expect(index.artifactType == nil)
    }

    @Test("a layer that may not be handed on need not be here")
    func foreign() throws {
        let layer =
            #"{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"\#(Self.digest)","size":3,"urls":["https://x/y"]}"#
        let manifest = try parse(#"{"schemaVersion":2,"config":\#(Self.part),"layers":[\#(layer)]}"#)
        #expect(manifest.parts.map(\.required) == [true, false])
    }

    @Test(
        "anything else is MANIFEST_INVALID",
        arguments: [
            "", "x", "[]", "{", #"{"schemaVersion":1}"#, #"{"schemaVersion":2}"#, #"{"schemaVersion":2,"config":\#(part)}"#,
            #"{"schemaVersion":2,"config":\#(part),"layers":{}}"#, #"{"schemaVersion":2,"config":\#(part),"layers":[],"layers":[]}"#,
            #"{"schemaVersion":2,"config":\#(part),"layers":[],"manifests":[]}"#, #"{"schemaVersion":2,"config":\#(part),"layers":[1]}"#,
            #"{"schemaVersion":2,"mediaType":"\#(MediaType.ociIndex)","config":\#(part),"layers":[]}"#,
            #"{"schemaVersion":2,"config":\#(part.replacing("3}", with: "-3}")),"layers":[]}"#,
            #"{"schemaVersion":2,"config":\#(part.replacing("3}", with: "3.5}")),"layers":[]}"#,
            #"{"schemaVersion":2,"config":\#(part.replacing("sha256", with: "md5")),"layers":[]}"#,
            #"{"schemaVersion":2,"config":\#(part),"layers":[\#(part.replacing("3}", with: #"3,"urls":["file:///etc/passwd"]}"#))]}"#,
            #"{"schemaVersion":2,"config":\#(part.replacing("3}", with: #"3,"data":"AAAA"}"#)),"layers":[]}"#,
            #"{"schemaVersion":2,"config":\#(part),"layers":[]} x"#, "\u{FEFF}{}", String(repeating: "[", count: 100_000),
            #"{"a":"\#("\\")ud800"}"#, #"{"a":01}"#, #"{"a":1e999}"#, "{\"a\":\"\n\"}",
        ])
    func invalid(_ text: String) {
        #expect { try parse(text) } throws: { ($0 as? OCIError)?.code == .manifestInvalid && ($0 as? OCIError)?.status == 400 }
    }

    @Test("bytes that are not UTF-8 are refused")
    func encoding() {
        #expect(throws: OCIError.self) { try Manifest(Array("{}".data(using: .utf16) ?? Data()), contentType: MediaType.ociManifest) }
        #expect(throws: OCIError.self) { try Manifest([0x22, 0xFF, 0x22], contentType: MediaType.ociManifest) }
    }

    @Test("unknown media types are named in the refusal")
    func unknownType() {
        #expect { try parse("{}", as: "text/plain") } throws: { ($0 as? OCIError)?.message.contains("'text/plain'") == true }
        #expect(throws: OCIError.self) { try parse(#"{"schemaVersion":2,"manifests":[]}"#, as: nil) }
    }

    @Test("strings are read with all escapes")
    func escapes() throws {
        let value = try StrictJSON.parse(Array(#"{"a":"x\"\\\/\b\f\n\r\tü😀","b":[true,false,null,-1,2.5e1]}"#.utf8))
        #expect(value["a"]?.string == "x\"\\/\u{8}\u{C}\n\r\tü😀")
        #expect(value["b"] == .array([.bool(true), .bool(false), .null, .int(-1), .double(25)]))
    }

    @Test("a manifest of 4 MiB is read")
    func large() throws {
        let layers = Array(repeating: Self.part, count: (4 << 20) / (Self.part.utf8.count + 1) - 10).joined(separator: ",")
        let text = #"{"schemaVersion":2,"config":\#(Self.part),"layers":[\#(layers)]}"#
        #expect(try parse(text).parts.count > 10_000)
    }
}
