//! The story of user-service.
