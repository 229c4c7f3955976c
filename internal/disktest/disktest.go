// Package disktest gives tests a small real disk that fills up. It is for tests
// alone, and works on Linux as root; elsewhere the test is skipped, with the
// reason.
package disktest
