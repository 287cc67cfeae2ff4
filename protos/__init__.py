"""The wire contract: .proto files and the stubs generated from them.

The stubs live in a descriptor pool of their own (`protos.pool`), so that a process may also import
`tritonclient` or KServe's stubs, which register the same package `inference` in protobuf's default pool.
"""
