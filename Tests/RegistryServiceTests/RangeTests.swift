import Testing

@testable import RegistryService

@Suite("ranges, pages and queries") struct RangeTests {
    @Test(
        "a Range header of a blob of 100 bytes",
        arguments: [
            (nil, ByteRange.whole), ("bytes=0-9", .part(0..<10)), ("bytes=90-", .part(90..<100)), ("bytes=-5", .part(95..<100)),
            ("bytes=0-1000", .part(0..<100)), ("bytes=-1000", .part(0..<100)), ("bytes=99-99", .part(99..<100)),
            ("Bytes=0-0", .part(0..<1)),
            ("bytes=500-0", .unsatisfiable), ("bytes=100-", .unsatisfiable), ("bytes=100-200", .unsatisfiable),
            ("bytes=-0", .unsatisfiable),
            ("bytes=", .unsatisfiable), ("bytes=-", .unsatisfiable), ("bytes=a-b", .unsatisfiable),
            ("bytes=0-9223372036854775807", .part(0..<100)),
            ("bytes=0-99999999999999999999", .part(0..<100)), ("bytes=99999999999999999999-", .unsatisfiable), ("items=0-1", .whole),
            ("bytes=0-1,5-6", .whole), ("nonsense", .whole),
        ] as [(String?, ByteRange)])
    func bytes(_ header: String?, _ expected: ByteRange) { #expect(ByteRange(header: header, size: 100) == expected) }

    @Test("nothing of an empty blob can be asked for")
    func empty() {
        #expect(ByteRange(header: "bytes=0-", size: 0) == .unsatisfiable)
        #expect(ByteRange(header: "bytes=-1", size: 0) == .unsatisfiable)
    }

    @Test("a chunk's Content-Range is START-END")
    func chunks() throws {
        let range = try ChunkRange("10-19")
        #expect(range.start == 10)
        #expect(range.end == 20)
        #expect(range.count == 10)
        for bad in ["5-2", "bytes 0-1", "0-", "-1", "a-b", "0-9223372036854775807", "0-9223372036854775808", "", "1-2-3", "+1-2"] {
            #expect(throws: OCIError.self) { try ChunkRange(bad) }
        }
        #expect(ChunkRange.progress(0) == "0-0")
        #expect(ChunkRange.progress(10) == "0-9")
    }

    @Test("n is a whole number, held to the cap")
    func pages() throws {
        func limit(_ query: String) throws -> Int { try Paging(try Parameters(query), lastLimit: 128).limit }
        #expect(try limit("") == 1000)
        #expect(try limit("n=0") == 0)
        #expect(try limit("n=5") == 5)
        #expect(try limit("n=999999999999") == 1000)
        for bad in ["n=-1", "n=abc", "n=", "n=1.5"] { #expect(throws: OCIError.self) { try limit(bad) } }
        #expect(throws: OCIError.self) { try Paging(try Parameters("last=" + String(repeating: "a", count: 129)), lastLimit: 128) }
    }

    @Test("a query is decoded once and keeps its plus signs")
    func queries() throws {
        let query = try Parameters("artifactType=application/x+json&digest=sha256%3Aaa&tag=a&tag=b&empty")
        #expect(query["artifactType"] == "application/x+json")
        #expect(query["digest"] == "sha256:aa")
        #expect(query.all("tag") == ["a", "b"])
        #expect(query["empty"] == "")
        #expect(query["none"] == nil)
        #expect(throws: OCIError.self) { try Parameters("a=%zz") }
        #expect(Percent.decode(Percent.encode("a+b/ü%")) == "a+b/ü%")
    }
}
