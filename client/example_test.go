package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http/httptest"
	"time"

	"github.com/spillway/spillway/client"
)

// Subscribing with a loop. A *Gap does not end it.
func Example() {
	node := exampleNode() // stands for a fan-out node
	defer node.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	c, err := client.Dial(ctx, client.Config{URL: node.URL, Token: "a JWT"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	s, err := c.Subscribe(ctx, "jobs.42", client.Live)
	if err != nil {
		log.Fatal(err)
	}
	for ev, err := range s.Events(ctx) {
		var gap *client.Gap
		if errors.As(err, &gap) {
			fmt.Println("missed some:", gap.Why)
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(ev.ID(), ev.Channel(), ev.Type(), string(ev.Data()))
		if ev.ID() == "3" {
			break
		}
	}
	// Output:
	// 1 jobs.42 demo.Message {"text":"one"}
	// 2 jobs.42 demo.Message {"text":"two"}
	// missed some: lag
	// 3 jobs.42 demo.Message {"text":"three"}
}

// Publishing. The id comes when the event is held durably.
func ExampleClient_Publish() {
	node := exampleNode()
	defer node.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	c, err := client.Dial(ctx, client.Config{URL: node.URL, Token: "a JWT"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	id, err := c.Publish(ctx, "jobs.42", "demo.Message", "message 7", []byte(`{"text":"hi"}`))
	fmt.Println(id, err)
	// Output: message 7 <nil>
}

func exampleNode() *httptest.Server { return client.DemoNode() }
