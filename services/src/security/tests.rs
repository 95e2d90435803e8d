//! The story of security-service.
