(component (import "example:database/query@1.0.0" (instance)))
