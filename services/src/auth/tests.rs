//! The story of auth-service over real HTTP and gRPC.
