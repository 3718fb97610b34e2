// The client of Go's gorilla/websocket: gorilla VERSION URI COMPRESSING_URI
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

const patience = 20 * time.Second

var uri, compressing string

func dial(address string, dialer websocket.Dialer) *websocket.Conn {
	dialer.HandshakeTimeout = patience
	connection, _, err := dialer.Dial(address, nil)
	must(err)
	connection.SetReadDeadline(time.Now().Add(patience))
	return connection
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func expect(got, wanted string) {
	if got != wanted {
		panic(fmt.Sprintf("got %.60s, not %s", got, wanted))
	}
}

func receive(connection *websocket.Conn) string {
	_, data, err := connection.ReadMessage()
	must(err)
	return string(data)
}

func echo(kind int, messages ...[]byte) {
	connection := dial(uri+"/echo", websocket.Dialer{})
	defer connection.Close()
	for _, message := range messages {
		must(connection.WriteMessage(kind, message))
		got, data, err := connection.ReadMessage()
		must(err)
		if got != kind || !bytes.Equal(data, message) {
			panic("something else came back")
		}
	}
}

func pattern(length int) []byte {
	made := make([]byte, length)
	for index := range made {
		made[index] = byte(index % 251)
	}
	return made
}

func sendFragments() {
	// A message longer than the buffer goes out in fragments.
	connection := dial(uri+"/joined", websocket.Dialer{WriteBufferSize: 5})
	defer connection.Close()
	writer, err := connection.NextWriter(websocket.TextMessage)
	must(err)
	for _, part := range []string{"one, ", "two, ", "three"} {
		_, err = writer.Write([]byte(part))
		must(err)
	}
	must(writer.Close())
	expect(receive(connection), "fragments: one, two, three")
}

func ping() {
	connection := dial(uri+"/echo", websocket.Dialer{})
	defer connection.Close()
	ponged := false
	connection.SetPongHandler(func(data string) error {
		ponged = data == "x"
		return nil
	})
	must(connection.WriteControl(websocket.PingMessage, []byte("x"), time.Now().Add(patience)))
	must(connection.WriteMessage(websocket.TextMessage, []byte("after")))
	expect(receive(connection), "after")
	if !ponged {
		panic("no pong")
	}
}

func ends() string {
	connection := dial(uri+"/close", websocket.Dialer{})
	defer connection.Close()
	_, _, err := connection.ReadMessage()
	end, _ := err.(*websocket.CloseError)
	return fmt.Sprintf("%d %s", end.Code, end.Text)
}

func closes() {
	connection := dial(uri+"/closed", websocket.Dialer{})
	defer connection.Close()
	frame := websocket.FormatCloseMessage(4002, "Übung")
	must(connection.WriteControl(websocket.CloseMessage, frame, time.Now().Add(patience)))
	connection.ReadMessage()
	expect(receive(dial(uri+"/report", websocket.Dialer{})), "4002 Übung")
}

func compress() {
	connection := dial(compressing+"/compression", websocket.Dialer{EnableCompression: true})
	defer connection.Close()
	message := strings.Repeat("compress me, ", 1000)
	must(connection.WriteMessage(websocket.TextMessage, []byte(message)))
	expect(receive(connection), "compressed")
	expect(receive(connection), message)
}

func check(name string, act func()) {
	found := map[string]string{"check": name, "result": "yes"}
	defer func() {
		if problem := recover(); problem != nil {
			found["result"] = "no"
			found["note"] = fmt.Sprint(problem)
		}
		line, _ := json.Marshal(found)
		fmt.Println(string(line))
	}()
	act()
}

func main() {
	uri, compressing = os.Args[2], os.Args[3]
	fmt.Printf("{\"version\": %q}\n", os.Args[1])
	text, binary := websocket.TextMessage, websocket.BinaryMessage
	check("text", func() { echo(text, []byte("Grüße, 世界 🌍")) })
	check("binary", func() { echo(binary, pattern(256)) })
	check("empty", func() { echo(text, []byte{}); echo(binary, []byte{}) })
	check("64k", func() { echo(text, []byte(strings.Repeat("ä", 32768))); echo(binary, pattern(65536)) })
	check("1m", func() { echo(binary, pattern(1048576)) })
	check("fragments-to", func() {
		expect(receive(dial(uri+"/fragments", websocket.Dialer{})), "one, two, three")
	})
	check("fragments-from", sendFragments)
	check("pings-to", func() { expect(receive(dial(uri+"/ping", websocket.Dialer{})), "answered") })
	check("pings-from", ping)
	check("close-to", func() { expect(ends(), "4001 Größe") })
	check("close-from", closes)
	check("subprotocol", func() {
		dialer := websocket.Dialer{Subprotocols: []string{"chat.v9", "chat.v2"}}
		expect(dial(uri+"/echo", dialer).Subprotocol(), "chat.v2")
	})
	check("compression", compress)
}
